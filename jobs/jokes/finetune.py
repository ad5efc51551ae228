"""Teach a GPT-2 to tell jokes: cut the text into blocks, train, measure perplexity on held-out jokes.

    python jobs/jokes/finetune.py --model gpt2 --data data.txt            # the pretrained weights, from the hub
    python jobs/jokes/finetune.py --model base --data data.txt --smoke    # seconds on 2 CPU cores
    python jobs/jokes/finetune.py --data data.txt --resume checkpoints    # go on after the newest checkpoint

AdamW, linear warm-up and cosine decay; bf16 and SDPA on a GPU. A checkpoint is a folder that `generate.py --model` can
load, with the rest of the training state beside the weights. A resumed training gives the same bits as an
uninterrupted one on the same machine (on a GPU, if torch has deterministic kernels; it warns if not).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import sys
import threading
import time
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before torch: deterministic matrix products on a GPU

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging as transformers_logging

from orchestrator.runtime import checkpoint_dir, on_stop, send_metric

END_OF_TEXT = "<|endoftext|>"
LOWEST_RATE = 0.1  # the cosine ends at this share of the peak
AUTO = "auto" if "SPELL_RUN" in os.environ else ""  # a run has checkpoints only from `spell resume`, or a retry
LINE_EVERY_S = 2.0  # seconds between progress lines in a log


def knob(default: Any, text: str) -> Any:
    """Return a field of `Knobs` with its text for --help."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Knobs:
    """All settings that change the weights. Each is an option too: `--block-tokens 256`."""

    steps: int = knob(0, "optimizer steps; 0: as many as --epochs asks for")
    epochs: float = knob(3.0, "times that the training text is seen")
    block_tokens: int = knob(128, "tokens in a block")
    batch_blocks: int = knob(8, "blocks in one forward pass")
    accumulate: int = knob(2, "forward passes in one optimizer step")
    learning_rate: float = knob(1e-4, "at the end of the warm-up")
    warmup: float = knob(0.1, "share of the steps in which the learning rate rises")
    weight_decay: float = knob(0.01, "of matrices; biases and norms have none")
    clip_norm: float = knob(1.0, "largest norm of the gradient")
    held_out: float = knob(0.1, "share of the jokes kept for the measurement")
    seed: int = knob(1, "of the split, the order of the blocks and dropout")


SMOKE = Knobs(steps=60, block_tokens=64, batch_blocks=8, accumulate=2, learning_rate=2e-3)


def parse_call() -> argparse.Namespace:
    """The command line. `knobs` are the Knobs, `given` those of them that were typed, the rest is about files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="gpt2", help="folder of a model, or its name on the hub (default: gpt2)")
    parser.add_argument("--data", type=Path, default=Path("data.txt"), help="one joke a line (default: data.txt)")
    parser.add_argument("--output", type=Path, default=Path("model"), help="folder for the result (default: model)")
    parser.add_argument("--resume", default=AUTO, help="a checkpoint, a folder of them, or 'auto': this run's, if any")
    parser.add_argument("--checkpoint-every", type=int, default=50, help="steps between checkpoints (default: 50)")
    parser.add_argument("--keep-checkpoints", type=int, default=2, help="newest ones that stay (default: 2)")
    parser.add_argument("--smoke", action="store_true", help="defaults for a quick try, given in brackets")
    for item in fields(Knobs):
        words = f"{item.metadata['help']} (default: {item.default} [{getattr(SMOKE, item.name)}])"
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=type(item.default), help=words)
    call = parser.parse_args()
    call.given = {name: value for item in fields(Knobs) if (value := getattr(call, name := item.name)) is not None}
    knobs = call.knobs = replace(SMOKE if call.smoke else Knobs(), **call.given)
    counts = knobs.block_tokens, knobs.batch_blocks, knobs.accumulate, call.checkpoint_every, call.keep_checkpoints
    if min(counts) < 1 or knobs.steps < 0 or knobs.epochs <= 0:
        parser.error("every count must be 1 or more (--steps 0 or more, --epochs above 0)")
    if not 0 < knobs.held_out < 1 or not 0 <= knobs.warmup <= 1:
        parser.error("--held-out and --warmup are shares, between 0 and 1")
    return call


# ---- text → blocks ----


@dataclass(frozen=True)
class Data:
    """The tokens: <|endoftext|> joke <|endoftext|> joke … <|endoftext|>."""

    blocks: Tensor  # (blocks, block_tokens + 1); neighbours share one token, so that each token is predicted once
    held_out: Tensor  # (tokens,)
    jokes_held_out: int
    digest: str  # of both; a checkpoint fits only the same data


def read_data(path: Path, tokenizer: PreTrainedTokenizerBase, knobs: Knobs) -> Data:
    """Split the jokes of `path` by `knobs.seed`, encode them and cut the training part into blocks."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"ERROR: cannot read jokes from {path}: {error}")
    jokes = [joke for line in lines if (joke := line.strip().removesuffix(END_OF_TEXT))]
    random.Random(knobs.seed).shuffle(jokes)  # noqa: S311 - a split, not a secret
    jokes_held_out = max(1, round(len(jokes) * knobs.held_out))
    train = encode(jokes[jokes_held_out:], tokenizer)
    held_out = encode(jokes[:jokes_held_out], tokenizer)
    if len(train) <= knobs.block_tokens or len(held_out) < 2:
        sys.exit(f"ERROR: {path} has {len(jokes)} jokes, too few for one block of {knobs.block_tokens} tokens")
    digest = hashlib.sha256(train.numpy().tobytes() + b"|" + held_out.numpy().tobytes()).hexdigest()
    blocks = train.unfold(0, knobs.block_tokens + 1, knobs.block_tokens)  # the rest at the end is not used
    return Data(blocks, held_out, jokes_held_out, digest)


def encode(jokes: list[str], tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """The jokes as one row of tokens (tokens,), the end of text before, between and after them."""
    end = tokenizer.eos_token_id
    encoded: list[list[int]] = tokenizer(jokes, verbose=False)["input_ids"] if jokes else []
    return torch.tensor([end] + [token for ids in encoded for token in [*ids, end]], dtype=torch.long)


@lru_cache(maxsize=2)
def order_of_epoch(seed: int, epoch: int, blocks: int) -> list[int]:
    """Return the order of the blocks in an epoch. It depends only on the arguments, so a checkpoint need not save it."""
    return [*torch.randperm(blocks, generator=torch.Generator().manual_seed(seed + epoch)).tolist()]


def batch_at(blocks: Tensor, blocks_seen: int, knobs: Knobs) -> Tensor:
    """The next batch (batch_blocks, block_tokens + 1) after `blocks_seen` blocks, through the ends of epochs."""
    rows = []
    for position in range(blocks_seen, blocks_seen + knobs.batch_blocks):
        epoch, place = divmod(position, len(blocks))
        rows.append(order_of_epoch(knobs.seed, epoch, len(blocks))[place])
    return blocks[rows]


# ---- model ----


def load_model(name: str | Path, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, from a folder or the hub."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="sdpa")
    except (OSError, ValueError) as error:
        sys.exit(f"ERROR: cannot load model {name}: {str(error).splitlines()[0]}\nMake one with base.py instead.")
    return model.float().to(device).train(), tokenizer


def pick_device() -> tuple[torch.device, bool]:
    """Return the GPU if there is one, else the CPU; and whether forward passes use bf16, for which a GPU needs units."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU for operations not in bf16
    if not torch.cuda.is_available():
        return torch.device("cpu"), False
    return torch.device("cuda"), torch.cuda.get_device_capability() >= (8, 0)  # Ampere is the first with bf16 units


def make_optimizer(model: PreTrainedModel, knobs: Knobs, steps: int) -> tuple[AdamW, LambdaLR]:
    """AdamW (https://arxiv.org/abs/1711.05101) with linear warm-up, then a cosine down to LOWEST_RATE."""
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": knobs.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    warmup_steps = max(1, round(steps * knobs.warmup))

    def rate(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        done = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
        return LOWEST_RATE + (1 - LOWEST_RATE) * (1 + math.cos(math.pi * done)) / 2

    optimizer = AdamW(groups, lr=knobs.learning_rate, betas=(0.9, 0.95), fused=model.device.type == "cuda")
    return optimizer, LambdaLR(optimizer, rate)


def loss_of(model: PreTrainedModel, rows: Tensor, reduction: str) -> Tensor:
    """Negative log-likelihood in nats of each row's tokens (rows, tokens + 1) after its first."""
    rows = rows.to(model.device)
    logits = model(input_ids=rows[:, :-1], use_cache=False).logits  # (rows, tokens, vocabulary)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), reduction=reduction)


def perplexity(model: PreTrainedModel, tokens: Tensor, knobs: Knobs) -> float:
    """exp(mean negative log-likelihood) of `tokens` (tokens,) in blocks; each token after the first counts once."""
    model.eval()
    starts = range(0, len(tokens) - 1, knobs.block_tokens)
    with torch.no_grad():
        total = sum(loss_of(model, tokens[at : at + knobs.block_tokens + 1][None], "sum").item() for at in starts)
    model.train()
    return math.exp(total / (len(tokens) - 1))


# ---- checkpoints ----


@dataclass
class Progress:
    """Progress of a training. With the knobs, it is the part of a checkpoint that a person can read."""

    steps: int  # in all
    started_at: float  # seconds since 1970; tells trainings apart whose checkpoints lie in one folder
    data: str  # digest
    perplexity_before: float
    step: int = 0
    blocks_seen: int = 0


@dataclass
class Training:
    """The whole state of a training. `written` are the checkpoints that it may delete, oldest first."""

    knobs: Knobs
    progress: Progress
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    optimizer: AdamW
    scheduler: LambdaLR
    written: list[Path] = field(default_factory=list)

    def save(self, keep: int) -> Path:
        """Write a checkpoint under a temporary name, then rename it; delete all but the newest `keep`."""
        target = checkpoint_dir() / f"step-{self.progress.step:06d}"
        beside = target.with_name(target.name + ".partial")
        if target in self.written:
            return target
        shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed while it wrote
        beside.mkdir(parents=True)
        self.model.save_pretrained(beside)
        self.tokenizer.save_pretrained(beside)
        about = {"knobs": asdict(self.knobs), "progress": asdict(self.progress)}
        (beside / "progress.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "python_rng": random.getstate(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all(),  # [] without a GPU
        }
        torch.save(state, beside / "state.pt")
        shutil.rmtree(target, ignore_errors=True)  # of an earlier training in the same folder
        beside.rename(target)
        self.written.append(target)
        while len(self.written) > keep:
            shutil.rmtree(self.written.pop(0))
        return target

    def restore(self, checkpoint: Path) -> None:
        """Restore optimizer, schedule and random numbers of a checkpoint exactly. `load_model` loads its weights."""
        state = torch.load(checkpoint / "state.pt", map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        random.setstate(state["python_rng"])
        torch.set_rng_state(state["torch_rng"])
        torch.cuda.set_rng_state_all(state["cuda_rng"][: torch.cuda.device_count()])


def find_checkpoint(resume: str) -> Path | None:
    """Return the checkpoint for --resume: the path itself, the newest in a folder, or for 'auto' the newest of this run."""
    folder = checkpoint_dir() if resume == "auto" else Path(resume)
    found = {}
    for about in [folder / "progress.json", *folder.glob("step-*[0-9]/progress.json")]:
        if about.is_file():
            there = Progress(**json.loads(about.read_text(encoding="utf-8"))["progress"])
            found[there.started_at, there.step] = about.parent
    if not found and resume != "auto":
        sys.exit(f"ERROR: {folder} has no checkpoint")
    return found[max(found)] if found else None


def read_progress(checkpoint: Path, call: argparse.Namespace) -> tuple[Knobs, Progress]:
    """Return the knobs and the progress of a checkpoint. Knobs on the command line must agree with them."""
    about = json.loads((checkpoint / "progress.json").read_text(encoding="utf-8"))
    knobs = Knobs(**about["knobs"])
    for name, asked in call.given.items():
        if asked != (saved := getattr(knobs, name)):
            sys.exit(f"ERROR: {checkpoint} was trained with {name} = {saved}, not {asked}; leave that option out")
    return knobs, Progress(**about["progress"])


# ---- training ----


class LogLines:
    """A file for tqdm without a terminal: each redrawing of the bar, which starts with \\r, becomes a line."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        """Print a text unless it is only white space."""
        if line := text.strip():
            print(line, flush=True)

    def flush(self) -> None:
        """Do nothing; `write` flushes."""


def progress_bar(progress: Progress) -> tqdm[Any]:
    """Return a progress bar: it moves on a terminal, and prints a line every LINE_EVERY_S seconds in a log."""
    where, interval_s = (sys.stdout, 0.1) if sys.stdout.isatty() else (LogLines(), LINE_EVERY_S)
    return tqdm(total=progress.steps, initial=progress.step, unit="step", ncols=100, file=where, mininterval=interval_s)


def begin(call: argparse.Namespace, device: torch.device) -> tuple[Training, Data]:
    """Load or resume model, data and optimizer, and set all random numbers."""
    checkpoint = find_checkpoint(call.resume) if call.resume else None
    knobs, progress = read_progress(checkpoint, call) if checkpoint else (call.knobs, None)
    model, tokenizer = load_model(checkpoint or call.model, device)
    if knobs.block_tokens > (longest := model.config.max_position_embeddings):
        sys.exit(f"ERROR: --block-tokens {knobs.block_tokens} is more than the {longest} that the model can see")
    data = read_data(call.data, tokenizer, knobs)
    if progress and progress.data != data.digest:
        sys.exit(f"ERROR: {call.data} is not the text that {checkpoint} was trained on")
    if not progress:
        steps = knobs.steps or math.ceil(knobs.epochs * len(data.blocks) / knobs.batch_blocks / knobs.accumulate)
        progress = Progress(steps, time.time(), data.digest, perplexity(model, data.held_out, knobs))
    set_seed(knobs.seed)
    training = Training(knobs, progress, tokenizer, model, *make_optimizer(model, knobs, progress.steps))
    if checkpoint:
        training.restore(checkpoint)
        training.written = [checkpoint_dir() / checkpoint.name] if checkpoint.parent.samefile(checkpoint_dir()) else []
        print(f"Resumed from {checkpoint}", flush=True)
    return training, data


def train_step(training: Training, data: Data, *, bf16: bool) -> float:
    """Make one optimizer step over `accumulate` batches, and return the mean loss in nats per token."""
    knobs, progress = training.knobs, training.progress
    total = 0.0
    for _ in range(knobs.accumulate):
        with torch.autocast(training.model.device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = loss_of(training.model, batch_at(data.blocks, progress.blocks_seen, knobs), "mean")
        (loss / knobs.accumulate).backward()
        total += loss.detach() / knobs.accumulate  # stays on the device until the end: no wait here
        progress.blocks_seen += knobs.batch_blocks
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), knobs.clip_norm)
    training.optimizer.step()
    training.scheduler.step()
    training.optimizer.zero_grad(set_to_none=True)
    progress.step += 1
    return float(total)


def train(training: Training, data: Data, call: argparse.Namespace, stop: threading.Event, *, bf16: bool) -> Path:
    """Train until the end or until `stop` is set, and return a checkpoint of the last step."""
    progress = training.progress
    with progress_bar(progress) as bar:
        while progress.step < progress.steps and not stop.is_set():
            learning_rate = training.scheduler.get_last_lr()[0]
            loss = train_step(training, data, bf16=bf16)
            if not math.isfinite(loss):
                sys.exit(f"ERROR: the loss is {loss} after step {progress.step}; try a lower --learning-rate")
            send_metric("loss", loss, progress.step)
            send_metric("learning_rate", learning_rate, progress.step)
            bar.set_postfix({"loss": f"{loss:.3f}", "lr": f"{learning_rate:.1e}"}, refresh=False)
            bar.update()
            if progress.step % call.checkpoint_every == 0:
                training.save(call.keep_checkpoints)
    return training.save(call.keep_checkpoints)


def main() -> None:
    """Measure, train, measure, save."""
    call = parse_call()
    stop = threading.Event()
    on_stop(stop.set)
    transformers_logging.disable_progress_bar()  # for loading and saving; this script has its own bar
    device, bf16 = pick_device()
    training, data = begin(call, device)
    progress = training.progress
    held_out = f"{data.jokes_held_out:,} held-out jokes ({len(data.held_out):,} tokens)"
    print(f"On {device}: {len(data.blocks):,} blocks of {training.knobs.block_tokens} tokens, {held_out}")
    print(f"Perplexity before: {progress.perplexity_before:.1f}", flush=True)
    send_metric("held_out_perplexity", progress.perplexity_before, 0)

    checkpoint = train(training, data, call, stop, bf16=bf16)
    if progress.step < progress.steps:
        how = f"spell resume {os.environ['SPELL_RUN']}" if AUTO else f"--resume {os.path.relpath(checkpoint)}"
        print(f"Stopped at step {progress.step} of {progress.steps}; go on with {how}")
        return
    training.tokenizer.save_pretrained(call.output)
    training.model.save_pretrained(call.output)
    after = perplexity(training.model, data.held_out, training.knobs)
    send_metric("held_out_perplexity", after, progress.step)
    print(f"Perplexity after: {after:.1f} (before: {progress.perplexity_before:.1f}); saved to {call.output}/")


if __name__ == "__main__":
    main()
