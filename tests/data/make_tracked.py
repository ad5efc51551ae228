"""Makes the project of docs/howto/trackers.md with the real trackers: `make_tracked.py mlflow|wandb|trackio FOLDER`.

mlflow 3.17.2, wandb 0.31.0 and trackio 0.43.0 made what is there; each in an environment of its own:

    uv run --no-project --with mlflow==3.17.2 tests/data/make_tracked.py mlflow tests/data/howto/trackers
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def mlflow() -> None:
    """Two finished runs with artifacts, one that failed, one without an end, one in the bin."""
    import mlflow

    mlflow.set_experiment("jokes")
    for rate in (0.1, 0.01):
        with mlflow.start_run(run_name=f"rate {rate}", tags={"team": "nlp"}, description="finetunes"):
            mlflow.log_params({"lr": rate, "opt/name": "adam"})
            for step in range(5):
                mlflow.log_metric("loss", rate + 1 / (step + 1), step=step)
            mlflow.log_metric("bad", float("nan"), step=0)
            mlflow.log_text("why did the run cross the road", "samples/joke.txt")
    with mlflow.start_run(run_name="broken"):
        mlflow.log_param("lr", 100)
    mlflow.MlflowClient().set_terminated(mlflow.last_active_run().info.run_id, "FAILED")
    with mlflow.start_run(run_name="binned"):
        pass
    mlflow.delete_run(mlflow.last_active_run().info.run_id)
    mlflow.MlflowClient().create_run("1", run_name="open")


def wandb() -> None:
    """An offline run that has printed something."""
    os.environ["WANDB_MODE"] = "offline"
    import wandb

    with wandb.init(
        project="jokes", name="rate 0.1", config={"lr": 0.1, "model": {"layers": 2}}, tags=["first"]
    ) as run:
        for step in range(5):
            print("step", step)
            run.log({"loss": 1 / (step + 1), "val": {"acc": step}})
        run.config.update({"late": True})
        Path("notes.txt").write_text("it is a joke\n")
        run.save("notes.txt", policy="now")


def trackio() -> None:
    """One run."""
    os.environ["TRACKIO_DIR"] = str(Path("trackio").absolute())
    import trackio

    trackio.init(project="jokes", name="rate 0.1", config={"lr": 0.1})
    for step in range(5):
        trackio.log({"loss": 1 / (step + 1)})
    trackio.finish()


def main(name: str, target: Path) -> None:
    """Make what one tracker writes in a folder like a person's, with this file as its script, and pack the databases."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(__file__, f"{folder}/train.py")
        subprocess.run([sys.executable, "train.py", name], cwd=folder, check=True)
        os.chdir(folder)
        for path in sorted(Path().rglob("*")):
            is_ours = (
                path.parts[0] in ("mlflow.db", "mlruns", "trackio") or "files" in path.parts or path.suffix == ".wandb"
            )
            if not (is_ours and path.is_file()) or path.suffix == ".lock":
                continue  # logs of the trackers themselves, and links to them
            place = target / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".db":
                place.with_name(f"{place.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
            else:
                shutil.copyfile(path, place)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(sys.argv[1], Path(sys.argv[2]).absolute())
    else:
        globals()[sys.argv[1]]()
