"""One training run, from a dataset folder to LoRA files: takes the model, builds what the loop needs, gives it back."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.config import OptimizerConfig, RunConfig
from lora_trainer.dataset.batches import batches_per_epoch, steps_per_epoch, total_epochs, total_steps
from lora_trainer.dataset.checks.check import READY, check
from lora_trainer.dataset.items import Dataset
from lora_trainer.errors import ConfigError, FileError, UnsupportedModelError, counted, quoted
from lora_trainer.files import IMPOSSIBLE, check_writable, name_problem
from lora_trainer.hosts.base import GenerateRequest, Host, TakenModel
from lora_trainer.network.beneath import networks_beneath
from lora_trainer.network.network import LoraNetwork
from lora_trainer.training.class_captions import ClassCaptions
from lora_trainer.training.classes import check_paths
from lora_trainer.training.ending import recorded
from lora_trainer.training.events import CancelToken, Event, Notice, Saved
from lora_trainer.training.feed import Feed
from lora_trainer.training.folder import SHARED_NAMES, RunFolder
from lora_trainer.training.identity import identity
from lora_trainer.training.learned_word import word_to_learn
from lora_trainer.training.lock import check_free, held
from lora_trainer.training.loop import training_loop
from lora_trainer.training.memory_plan.comparing import Comparison
from lora_trainer.training.memory_plan.planning import plan_memory
from lora_trainer.training.objective import make_objective
from lora_trainer.training.precision import check_precision
from lora_trainer.training.processes import Processes
from lora_trainer.training.record import metadata_of, run_facts
from lora_trainer.training.sampling import Sampler, sample_requests
from lora_trainer.training.saver import Saver
from lora_trainer.training.session import Session
from lora_trainer.training.shortage import begin_with_less
from lora_trainer.training.state import Position, load_state
from lora_trainer.training.step import Update, make_update
from lora_trainer.training.taken import check_taken
from lora_trainer.training.trackers import Trackers
from lora_trainer.training.watch.meter import Meter
from lora_trainer.training.watch.weights import broken_weights

FORBIDDEN_IN_NAMES = IMPOSSIBLE + ","  # the prompt syntax <lora:NAME:w> ends a name there


@dataclass(frozen=True)
class RunRequest:
    """What to train and where the files go."""

    name: str
    dataset: Path
    config: RunConfig
    output: Path  # the folder that will hold <name>/
    resume: bool = False
    overwrite: bool = False
    typed: frozenset[str] = frozenset()  # class paths that were typed on the command line, by the user who runs them
    trigger: str = ""  # empty: what the folders of the dataset say


def train(host: Host, request: RunRequest, token: CancelToken | None = None) -> Generator[Event, None, None]:
    """Train; the host has its model back, unchanged, at the end and whenever this generator is closed.

    At every event the model carries nothing of ours (see :func:`lora_trainer.training.loop.training_loop`).

    Raises:
        LoraTrainerError: in one sentence. Nothing is half-written then.
    """
    token = token or CancelToken()
    processes = Processes()
    told = check_paths(request.config, request.typed)
    folder = RunFolder(request.output, request.name)
    with ExitStack() as stack:
        processes.main_first(lambda: stack.enter_context(_claimed(request, host.lora_dir, folder)))
        yield from _train(host, request, token, folder, processes, told)


@contextmanager
def _claimed(request: RunRequest, lora_dir: Path, folder: RunFolder) -> Iterator[None]:
    """The name, for this run alone; what killed runs of this name left half written is gone."""
    check_name(request, lora_dir)  # a run that is refused leaves no folder
    folder.prepare()
    check_writable(lora_dir, "LoRA folder")
    with held(*folder.locks(lora_dir)):
        check_taken(folder, lora_dir, request.config.save, request.resume, request.overwrite)
        folder.sweep(lora_dir)
        yield


def _train(
    host: Host,
    request: RunRequest,
    token: CancelToken,
    folder: RunFolder,
    processes: Processes,
    told: list[str],
) -> Iterator[Event]:
    checked = check(
        request.dataset, request.config.dataset, request.config.caption, trigger=request.trigger, output=request.output
    )
    dataset = checked.dataset
    if processes.is_main:
        yield from (Notice(text) for text in [*told, *dataset.notices, *map(str, dataset.skipped)])
    with host.take(request.config.memory.mixed_precision) as model:
        if broken := broken_weights(model):
            raise UnsupportedModelError(broken)
        if model.apart and request.config.tunes_text:
            raise UnsupportedModelError(
                "With --medvram, UNet and text encoder are never in memory together; switch network_train_unet_only "
                "on, or start the WebUI without --medvram."
            )
        session = _open(host, request, model, dataset, folder, processes)
        if processes.is_main:
            found = [f"Check of the images: {checked.readiness}"] if checked.readiness != READY else []
            yield from (Notice(text) for text in [*found, *session.news])
        written: list[Path] = []
        meter = Meter(model.device)
        with recorded(session, token):
            yield from plan_memory(session)
            yield from session.told(begin_with_less(session))
            for event in _encoded(session):
                yield event
                yield from meter.read()
                if token.cancelled and processes.world == 1:  # several must agree, which they do before the first step
                    break
            model.keep(session.feed.parts)
            if not token.cancelled:
                yield from session.told(session.learning.begin())
            comparison = Comparison(session)
            with (
                Trackers(session) as trackers,
                closing(training_loop(session, token)) as events,  # closed here, while the model is still ours
            ):
                for event in events:
                    if isinstance(event, Saved):
                        written.append(event.path)
                        host.refresh_loras([event.path])
                    if processes.is_main:
                        yield event
                        yield from comparison.read(event)
                        yield from session.told(trackers.read(event))
                        yield from meter.read()
    host.refresh_loras(written)


def _encoded(session: Session) -> Iterator[Event]:
    """Everything that the run can encode beforehand; one part of the model after the other is at work."""
    yield from session.feed.fill_images()
    yield from session.feed.fill_captions()
    yield from session.told(session.learning.encode())


def check_name(request: RunRequest, lora_dir: Path) -> None:
    """Refuse a name that can't be used in ``<lora:NAME:w>`` or is taken.

    Raises:
        ConfigError: in one sentence.
        HostBusyError: if a run of that name is in progress: it wasn't interrupted, and there is nothing to choose.
    """
    check_syntax(request, lora_dir)
    folder = RunFolder(request.output, request.name)
    check_free(*folder.locks(lora_dir))
    check_taken(folder, lora_dir, request.config.save, request.resume, request.overwrite)


def check_syntax(request: RunRequest, lora_dir: Path) -> None:
    """Refuse a name that can't be used in ``<lora:NAME:w>``, as a file's, or as that of the run's folder.

    Raises:
        ConfigError: in one sentence.
    """
    name = request.name
    problem = name_problem(name, FORBIDDEN_IN_NAMES)
    if not problem and (name.lower() in SHARED_NAMES or (request.output / name).resolve() == lora_dir.resolve()):
        problem = "the output folder needs that name for something else"
    if problem or name.lower() == "none":
        problem = problem or "it is reserved"
        raise ConfigError(f"The name {quoted(name)} can't be used: {problem}. Use letters, digits, - and _.")


def _open(
    host: Host, request: RunRequest, model: TakenModel, dataset: Dataset, folder: RunFolder, processes: Processes
) -> Session:
    """Build the session; resumes from the saved state if asked to."""
    config, info = request.config, model.info
    check_precision(model.device, config.memory.mixed_precision)
    seed = processes.from_main(_seed(config, folder, request.resume))
    config = config.replace(seed=seed)
    batches = batches_per_epoch(dataset, processes.world)
    steps = total_steps(config.optimizer, batches)
    epochs = total_epochs(steps, batches, config.optimizer.gradient_accumulation_steps)
    if config.save.save_n_epoch_ratio:
        config = config.replace(save_every_n_epochs=max(1, epochs // config.save.save_n_epoch_ratio))

    word = word_to_learn(config, request.trigger, dataset)
    beneath = networks_beneath(config.network, model)

    def fresh() -> tuple[LoraNetwork, Update]:
        made = LoraNetwork.create(model.unet, model.text_encoders, info, config, seed, word).to(model.device)
        made.beneath = beneath
        return made, make_update(made.parameter_groups(config), config, steps, model.device, request.typed)

    network, update = fresh()
    classes = ClassCaptions.of(config, request.trigger, dataset)
    objective = make_objective(info, model.alphas_cumprod, config.loss)
    fallback = next((item.captions[0] for item in dataset.items if item.captions), request.name)
    session = Session(
        config=config,
        seed=seed,
        model=model,
        network=network,
        dataset=dataset,
        feed=Feed(model, dataset, objective, config, seed, steps, epochs, processes, folder, classes, beneath),
        objective=objective,
        update=update,
        processes=processes,
        folder=folder,
        saver=Saver(
            host.lora_dir,
            request.name,
            config.save,
            metadata_of(config, dataset, info, steps, epochs, processes.world),
            processes.is_main,
        ),
        sampler=Sampler(_samples(host, config, fallback, seed, info.resolution), folder.samples, config.sample),
        steps=steps,
        epochs=epochs,
        start=_start(config.optimizer, steps_per_epoch(batches, config.optimizer.gradient_accumulation_steps), steps),
        identity=identity(config, dataset, info, processes, model.device),
        fresh=fresh,
        notices=[*dataset.notices, *map(str, dataset.skipped)],
    )
    session.begin_at(session.start.copy())
    session.news = [line for one in (network, *beneath) for line in one.notices]
    older = request.resume and _resume(session)
    session.notices += session.news
    processes.wait()
    if processes.is_main:
        if older:
            folder.set_state_aside()
        session.facts = run_facts(request.name, request.dataset.absolute(), request.trigger, session)
        session.replacing = request.overwrite and not request.resume
        if not session.replacing:
            session.begin_folder()
    return session


def _resume(session: Session) -> bool:
    """Begin where the saved state ends; whether that is the state before the latest, which can't be used.

    Raises:
        LoraTrainerError: if there is no state of this run, or more steps are done than it has now.
    """
    config, latest = session.config, session.folder.state
    loaded = load_state(latest, session.network, session.parts(), session.identity)
    if (done := loaded.position.step) > session.steps:
        name = "max_train_steps" if config.optimizer.max_train_steps else "max_train_epochs"
        raise ConfigError(
            f"Can't resume: {counted(done, 'step')} are done already, and with {name} {config.to_dict()[name]} the run "
            f"has {session.steps}. Raise it, or use one of the run's earlier files."
        )
    session.begin_at(loaded.position, loaded.seen)
    session.news += [*loaded.notices, *session.saver.missing(loaded.position)]
    older = loaded.path != latest
    if older:
        session.news.append(
            f"{latest} is damaged or missing: continuing from {loaded.path}, step {session.first_step}."
        )
    return older


def _start(config: OptimizerConfig, each: int, steps: int) -> Position:
    """Where the run begins; ``each`` epoch has so many steps.

    Raises:
        ConfigError: if nothing is left to train.
    """
    done = config.initial_step or max(0, config.initial_epoch - 1) * each
    if done >= steps:
        name = "initial_step" if config.initial_step else "initial_epoch"
        raise ConfigError(
            f"{name} {getattr(config, name)} leaves nothing to train: the run has {counted(steps, 'step')} in all; "
            "lower it, or train longer."
        )
    epochs, group = divmod(done, each)
    group *= config.skip_until_initial_step
    return Position(epochs + 1, group, epochs * each + group)


def _samples(host: Host, config: RunConfig, fallback: str, seed: int, side: int) -> list[GenerateRequest]:
    """The sample images' requests; what can't be made is refused now and not at every sampling point."""
    requests = sample_requests(config.sample, fallback, seed, side)
    if config.sample.sample_every_n_epochs or config.sample.sample_every_n_steps:
        for request in requests:
            host.check(request)
    return requests


def _seed(config: RunConfig, folder: RunFolder, resume: bool) -> int:
    """The run's seed: the given one, that of the run to resume, or a new one."""
    if config.optimizer.seed:
        return config.optimizer.seed
    if resume and folder.run.is_file():
        recorded = folder.read_run().get("config")
        seed = recorded.get("seed") if isinstance(recorded, dict) else None
        if type(seed) is int and 0 < seed < 2**63:
            return seed
        raise FileError(f"{folder.run} holds no seed; set seed to the one of that run, or start without resuming.")
    return secrets.randbelow(2**31 - 1) + 1
