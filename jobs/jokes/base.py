"""Make a small GPT-2 from text alone, for machines that cannot download the pretrained weights.

    python jobs/jokes/base.py           # 11 million weights
    python jobs/jokes/base.py --smoke   # 0.5 million weights, seconds on 2 CPU cores

Trains a byte-level BPE tokenizer (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909, on bytes as in GPT-2) and
initialises the weights; finetune.py trains them. The folder `model/` then replaces `gpt2` of a hub:
`AutoTokenizer.from_pretrained("model")` and `AutoModelForCausalLM.from_pretrained("model")` load it.
The same text, knobs and library versions give the same files.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging as transformers_logging

from orchestrator.runtime import send_metric

SAMPLE = Path(__file__).with_name("sample.csv")
END_OF_TEXT = "<|endoftext|>"
LEAST_VOCABULARY = 257  # tokens: every byte, and the end of text
SMOKE = {"vocabulary": 512, "context": 128, "layers": 2, "heads": 4, "width": 128}


def parse_knobs() -> argparse.Namespace:
    """Parse the command line. --smoke changes the defaults."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--text", type=Path, default=SAMPLE, help="a joke a line, or a CSV with a column Joke")
    parser.add_argument("--output", type=Path, default=Path("model"), help="folder for the model and its tokenizer")
    parser.add_argument("--vocabulary", type=int, default=4096, help="maximum number of tokens")
    parser.add_argument("--context", type=int, default=256, help="tokens that the model sees at once")
    parser.add_argument("--layers", type=int, default=6, help="transformer blocks")
    parser.add_argument("--heads", type=int, default=6, help="attention heads in a block; must divide the width")
    parser.add_argument("--width", type=int, default=384, help="numbers that stand for one token")
    parser.add_argument("--seed", type=int, default=1, help="of the first weights")
    parser.add_argument("--smoke", action="store_true", help=f"defaults for a quick try: {SMOKE}")
    if parser.parse_known_args()[0].smoke:
        parser.set_defaults(**SMOKE)
    knobs = parser.parse_args()
    if knobs.vocabulary < LEAST_VOCABULARY:
        parser.error(f"--vocabulary must be {LEAST_VOCABULARY} or more: every byte, and the end of text")
    if knobs.width % knobs.heads:
        parser.error(f"--heads {knobs.heads} does not divide --width {knobs.width}")
    return knobs


def read_jokes(path: Path) -> list[str]:
    """Return the jokes of a text file (one a line, without <|endoftext|>) or of the column Joke of a CSV."""
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            return [row["Joke"] for row in csv.DictReader(file)]
        return [line.strip().removesuffix(END_OF_TEXT) for line in file]


def train_tokenizer(jokes: list[str], vocabulary: int, context: int) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer of at most `vocabulary` tokens. Pairs of tokens that occur twice are merged."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        jokes, vocab_size=vocabulary, min_frequency=2, special_tokens=[END_OF_TEXT], show_progress=False
    )
    with tempfile.TemporaryDirectory() as folder:
        bpe.save_model(folder)  # vocab.json and merges.txt, the two files that GPT-2 came with
        tokenizer: PreTrainedTokenizerBase = GPT2TokenizerFast.from_pretrained(folder, model_max_length=context)
    return tokenizer


def make_model(knobs: argparse.Namespace, tokens: int, end_of_text: int) -> GPT2LMHeadModel:
    """Make a GPT-2 (Radford et al. 2019) for `tokens` tokens with random weights, which depend only on the seed."""
    set_seed(knobs.seed)
    config = GPT2Config(
        vocab_size=tokens,
        n_positions=knobs.context,
        n_layer=knobs.layers,
        n_head=knobs.heads,
        n_embd=knobs.width,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
    )
    return GPT2LMHeadModel(config)


def main() -> None:
    """Text → tokenizer → model, both saved to --output."""
    knobs = parse_knobs()
    transformers_logging.disable_progress_bar()
    try:
        jokes = [joke for joke in read_jokes(knobs.text) if joke]
    except (OSError, UnicodeDecodeError, KeyError) as error:
        sys.exit(f"ERROR: cannot read jokes from {knobs.text}: {error!r}")
    if not jokes:
        sys.exit(f"ERROR: {knobs.text} is empty")
    characters = sum(map(len, jokes))
    print(f"{os.path.relpath(knobs.text)}: {len(jokes):,} jokes, {characters:,} characters", flush=True)

    tokenizer = train_tokenizer(jokes, knobs.vocabulary, knobs.context)
    encoded = sum(len(ids) for ids in tokenizer(jokes, verbose=False)["input_ids"])
    print(f"Tokenizer: {len(tokenizer):,} tokens, {characters / encoded:.2f} characters in a token of this text")

    model = make_model(knobs, len(tokenizer), tokenizer.eos_token_id)
    weights = sum(weight.numel() for weight in model.parameters())
    print(f"Model: {weights:,} weights, {knobs.layers} layers, {knobs.heads} heads, width {knobs.width}")

    tokenizer.save_pretrained(knobs.output)
    model.save_pretrained(knobs.output)
    send_metric("vocabulary", len(tokenizer))
    send_metric("weights", weights)
    print(f"Saved to {knobs.output}/ (torch {torch.__version__})")


if __name__ == "__main__":
    main()
