"""What the loop needs, built for a run that begins or goes on."""

from __future__ import annotations

import secrets

from lora_trainer.config import OptimizerConfig, RunConfig
from lora_trainer.dataset.batches import batches_per_epoch, steps_per_epoch, total_epochs, total_steps
from lora_trainer.dataset.items import Dataset
from lora_trainer.errors import ConfigError, FileError, counted
from lora_trainer.hosts.base import GenerateRequest, Host, TakenModel
from lora_trainer.network.beneath import networks_beneath
from lora_trainer.network.network import LoraNetwork
from lora_trainer.training.class_captions import ClassCaptions
from lora_trainer.training.feed import Feed
from lora_trainer.training.folder import RunFolder
from lora_trainer.training.identity import identity
from lora_trainer.training.learned_word import word_to_learn
from lora_trainer.training.objective import make_objective
from lora_trainer.training.precision import check_precision
from lora_trainer.training.processes import Processes
from lora_trainer.training.record import metadata_of, run_facts
from lora_trainer.training.request import RunRequest
from lora_trainer.training.sampling import Sampler, sample_requests
from lora_trainer.training.saver import Saver
from lora_trainer.training.session import Session
from lora_trainer.training.state import Position, load_state
from lora_trainer.training.step import Update, make_update


def open_session(
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
