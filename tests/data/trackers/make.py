"""Makes the files of this folder with the real packages; see README.md. `make.py NAME FOLDER` makes those of one tracker."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import tempfile
from pathlib import Path


def tensorboard(folder: Path) -> None:
    """Two writers with a restart, both kinds of scalars, and everything else that an event can hold."""
    import numpy as np
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for step, value in ((1, 1.0), (2, 0.5), (5, 0.25), (3, float("nan")), (4, float("inf"))):
            writer.add_scalar("loss", value, step, new_style=True)
            writer.add_scalar("rate", value, step)
        writer.add_histogram("weights", np.arange(10.0), 1)
        writer.add_image("picture", np.zeros((3, 4, 4)), 7)
        writer.add_text("note", "hello", 1)
        writer.add_hparams({"lr": 0.1, "opt": "adam", "warm": True}, {"hp/acc": 0.5}, run_name="session")
    with SummaryWriter(str(folder), purge_step=4) as writer:
        writer.add_scalar("loss", 0.125, 4, new_style=True)


def tensorboardx(folder: Path) -> None:
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("loss", 0.5, 1)
        writer.add_scalars("both", {"a": 1, "b": 2}, 3)
        writer.add_hparams({"lr": 0.1, "warm": True}, {"hp/acc": 0.5}, name="session")


def lightning(folder: Path) -> None:
    """The file is written anew when `b` comes."""
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(str(folder), name=None, version="logs")
    for step in range(3):
        logger.log_metrics({"a": step / 2}, step)
        logger.save()
    logger.log_metrics({"a": float("nan"), "b": 2.0}, 3)
    logger.save()


def wandb(folder: Path) -> None:
    """More than one block of the log, and records that span blocks."""
    os.environ["WANDB_MODE"] = "offline"
    import wandb

    settings = wandb.Settings(
        x_disable_meta=True, x_disable_machine_info=True
    )  # else it notes the paths of this machine
    config = {"lr": 0.1, "nested": {"a": 1}}
    run = wandb.init(project="project", name="first", config=config, tags=["tag"], settings=settings)
    for step in range(12):
        run.log(
            {"loss": 1 / (step + 1), "val/acc": step, "deep": {"x": 1}, "text": "long " * 900, "none": float("nan")}
        )
    run.log({"late": 3}, step=100)
    run.config.update({"more": 7})
    run.finish()
    (log,) = Path("wandb").glob("offline-run-*/run-*.wandb")
    _packed(log, folder / "run-first.wandb.gz")


def mlflow(folder: Path) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    _mlflow_runs(mlflow)
    _packed(folder / "mlflow.db", folder / "mlflow.db.gz")
    (folder / "mlflow.db").unlink()


def mlruns(folder: Path) -> None:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow

    mlflow.set_tracking_uri(f"file:{folder}/mlruns")
    _mlflow_runs(mlflow)


def _mlflow_runs(mlflow: object) -> None:
    mlflow.create_experiment("experiment", artifact_location="/tmp/artifacts")
    mlflow.set_experiment("experiment")
    for name in ("first", "second"):
        with mlflow.start_run(run_name=name):
            mlflow.log_params({"lr": 0.1, "opt": "adam: x"})
            mlflow.set_tag("team", "vision")
            for step in range(3):
                mlflow.log_metric("val/loss", 1 / (step + 1), step=step)
            for step, value in enumerate((float("nan"), float("inf"), float("-inf"))):
                mlflow.log_metric("bad", value, step=step)


def trackio(folder: Path) -> None:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    trackio.init(project="project", name="first", config={"lr": 0.1, "opt": "adam"})
    for step in range(3):
        trackio.log({"loss": 1 / (step + 1), "none": float("nan"), "inf": float("inf"), "deep": {"a": 1}, "text": "x"})
    trackio.log({"late": 1}, step=10)
    trackio.finish()
    _packed(folder / "project.db", folder / "project.db.gz")
    for path in folder.iterdir():
        if path.suffix != ".gz":
            path.unlink()


def _packed(source: Path, target: Path) -> None:
    target.write_bytes(gzip.compress(source.read_bytes(), mtime=0))


if __name__ == "__main__":
    name, target = sys.argv[1], Path(sys.argv[2]).absolute()
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        made = Path(temporary) / "made"
        made.mkdir()
        globals()[name](made)
        shutil.rmtree(target / name, ignore_errors=True)
        shutil.copytree(made, target / name)
