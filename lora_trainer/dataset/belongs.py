"""What belongs to a kind of subject, and so must not be in its captions; pure functions on texts.

A LoRA learns as its trigger word what the images have in common and the captions don't mention. So the colour of a
person's hair stays out of the captions, and a coat, which is to stay changeable, goes in.
"""

from __future__ import annotations

import re

from lora_trainer.dataset.remarks import plain
from lora_trainer.errors import ConfigError, quoted

RULES = {
    "person": "Hair, eyes and face belong to the person: what a caption doesn't mention becomes part of the trigger "
    "word, and what it mentions has to be asked for in every prompt.",
    "character": "Hair, eyes and ears belong to the character: what a caption doesn't mention becomes part of the "
    "trigger word, and what it mentions has to be asked for in every prompt.",
    "style": "The style itself stays out of the captions, such as “a watercolor of”: what they don't mention becomes "
    "part of the trigger word, and what they mention has to be asked for in every prompt.",
}

_SHADES = (
    "red", "blonde?", "brown", "black", "white", "gr[ae]y", "silver", "blue", "green", "pink", "purple", "orange",
    "golden", "gold", "auburn", "ginger", "hazel", "amber", "dark", "light", "pale", "bright", "multicolored",
    "two-tone", "gradient", "streaked", "long", "short", "medium", "very", "shoulder-length", "curly", "straight",
    "wavy", "spiky", "messy", "thick", "thin", "big", "large", "small", "bushy", "tied", "tied-back", "braided", "high",
    "low", "side",
)  # fmt: skip
_SHADE = rf"(?:{'|'.join(_SHADES)})"
_PART = (
    r"(?:hair(?:cut|style)?|eyes|eyebrows|eyelashes|beard|goatee|stubble|mou?stache|freckles|ponytail|twintails|pigtails"
    r"|braids?|bangs|dreadlocks|sideburns|complexion|skin|bob cut|hair bun|(?:animal|cat|dog|fox|rabbit|pointy) ears)"
)
_WORN = r"(?!\s+(?:ornament|ribbon|bow|flower|tie|clip|pin|band|bobbles|scrunchie|salon|dryer|brush|closed|shut)\b)"
_STOP = r"(?:and|with|on|in|of|at|to|over|under|near|for|from|is|are|has|closed|shut|half-closed|a|an|the)"
_ITEM = (
    rf"(?:(?:an?|her|his|their|the)\s+)?(?:{_SHADE}(?:,|\s+and)?\s+)*(?:(?!{_STOP}\b)[\w-]+\s+){{0,2}}?{_PART}\b{_WORN}"
)
_WEARER = r"(?=(?:\w+\s+)?(?:woman|man|girl|boy|person|lady|guy|child|kid|male|female|teenager|model|character)\b)"

_WORDS = rf"(?:(?!(?:{_STOP[3:-1]}|her|his|their)\b)[\w-]+ ){{0,3}}"  # before what a tag is about
_FACE_TAG = re.compile(
    rf"{_WORDS}(?:hair|eyes|eyebrows|eyelashes|bangs|ponytail|twintails|pigtails|braids?|dreadlocks|beard|stubble|goatee"
    r"|mustache|moustache|freckles|skin|ahoge|sidelocks|bob cut|hair bun|double bun|animal ears|cat ears|fox ears"
    r"|(?:rabbit|dog|pointy) ears|heterochromia|breasts|complexion|sideburns)"
    r"|blonde?|brunette|redhead|bald|dark-skinned (?:fe)?male|mole under \w+|fangs?|horns|tail|wings|halo"
)
_POSE_TAG = re.compile(r"(?:half-)?closed eyes|eyes (?:half-)?(?:closed|shut)|one eye closed|covered eyes|empty eyes")
_FACE_PHRASES = (  # in this order
    (re.compile(rf"\b(?:with|has|having)\s+{_ITEM}(?:(?:\s*,\s*|\s*,?\s+and\s+){_ITEM})*\s+and\s+", re.I), "with "),
    (re.compile(rf"\s*\b(?:with|has|having)\s+{_ITEM}(?:(?:\s*,\s*|\s*,?\s+and\s+){_ITEM})*", re.I), ""),
    (re.compile(rf"\s+and\s+{_ITEM}", re.I), ""),
    (re.compile(rf"\b(?:{_SHADE}[\s-]+)*[\w-]+[\s-](?:haired|eyed|skinned)\s+(?:and\s+)?", re.I), ""),
    (
        re.compile(rf"\b(?:blonde?|brunette|redhead(?:ed)?|ginger|bald|bearded|freckled)\s+(?:and\s+)?{_WEARER}", re.I),
        "",
    ),
    (re.compile(rf"\s+with(?:\s+{_SHADE})+$", re.I), ""),  # the rest of what a comma has parted
    (re.compile(rf"^{_ITEM}\s+", re.I), ""),
)

_MEDIUM = (
    r"(?:painting|drawing|sketch|illustration|watercolou?r|anime|cartoon|comic|manga|photo|photograph|photography|picture"
    r"|rendering|render|artwork|line ?art|pixel art|digital art|print|engraving|etching)"
)
_STYLE_TAG = re.compile(
    rf"{_WORDS}(?:{_MEDIUM}|style)|.*\(medium\)|traditional media|monochrome|gr[ae]yscale|sepia|3d|cgi"
    r"|(?:photo)?realistic|photorealism|realism|sketchy|black and white|oil on canvas|ink|impressionism|art nouveau"
    r"|retro artstyle"
)
_STYLE_PHRASES = (
    (re.compile(rf"^(?:(?:there|this) is )?(?:an?|the) (?:black and white )?{_WORDS}{_MEDIUM} (?:of|with) ", re.I), ""),
    (re.compile(r"\s*,?\s+in (?:the|an?) style of .*$|\s*,?\s+in (?:an? )?(?:[\w-]+ ){1,2}style\b", re.I), ""),
    (re.compile(rf"\s+(?:in|with) (?:oil|ink|pencil|charcoal|pastels?|{_MEDIUM})\b(?! case| box)", re.I), ""),
)  # fmt: skip
_TOLD = {"person": (_FACE_TAG, _FACE_PHRASES), "character": (_FACE_TAG, _FACE_PHRASES),
         "style": (_STYLE_TAG, _STYLE_PHRASES)}  # fmt: skip


def can_leave_out(kind: str) -> bool:
    """Whether words tell what belongs to such a subject: a red bottle is red by nature or by chance."""
    return kind in _TOLD


def check_kind(kind: str) -> None:
    """Refuse a kind of subject whose own words can't be told.

    Raises:
        ConfigError: one sentence.
    """
    if not can_leave_out(kind):
        raise ConfigError(
            f"What belongs to {quoted(kind) if kind else 'a subject of no kind'} can't be told from words, only for "
            f"{', '.join(_TOLD)}; remove the words that describe your subject yourself."
        )


def left_out(line: str, kind: str, trigger: str = "") -> str:
    """A line of a caption without what belongs to the subject; the same text where nothing does.

    Args:
        trigger: stays where it is, even if it reads like such a word: ``zwx_style``.

    Raises:
        ConfigError: if that can't be told for this kind.
    """
    check_kind(kind)
    return ", ".join(kept) if (kept := _kept(line, kind, plain(trigger))) != _parts(line) else line


def _kept(line: str, kind: str, trigger: str) -> list[str]:
    kept = []
    for part in _parts(line):
        changed = "" if belongs(part, kind) else _without_phrases(part, kind)
        kept.append(part if trigger in plain(part) and trigger not in plain(changed) else changed)
    return [part for part in kept if part]


def belongs(tag: str, kind: str) -> bool:
    """Whether a whole tag is about what belongs to the subject."""
    words = plain(tag)
    return bool(_TOLD[kind][0].fullmatch(words)) and not _POSE_TAG.fullmatch(words)


def _without_phrases(part: str, kind: str) -> str:
    if len(part.split()) < 3:
        return part
    changed = part
    for phrase, instead in _TOLD[kind][1]:
        changed = phrase.sub(instead, changed)
    if changed == part:
        return part
    return _with_articles(" ".join(changed.split()).removeprefix("and ").removesuffix(" and"))


def _with_articles(text: str) -> str:
    """``an`` before a vowel and ``a`` elsewhere, now that another word follows."""

    def article(found: re.Match[str]) -> str:
        letter = found[1][0]
        return f"{letter}n {found[2]}" if found[2].lower() in "aeiou" else f"{letter} {found[2]}"

    return re.sub(r"\b([Aa]n?) (\w)", article, text)


def _parts(line: str) -> list[str]:
    return [part.strip() for part in line.split(",") if part.strip()]
