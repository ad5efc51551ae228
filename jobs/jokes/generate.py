"""Let a GPT-2 tell jokes.

    python jobs/jokes/generate.py --model gpt2 --prompt "My neighbour"   # the pretrained weights, from the hub
    python jobs/jokes/generate.py --model model --smoke                  # a folder of finetune.py or base.py

Prints the jokes and writes them to jokes.txt, one a line. The same model, seed and machine give the same jokes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging as transformers_logging

SMOKE = {"count": 4, "length": 30}


def parse_knobs() -> argparse.Namespace:
    """Parse the command line. --smoke changes the defaults."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default="gpt2", help="folder of a model, or its name on the hub")
    parser.add_argument("--prompt", default="", help="how each joke starts")
    parser.add_argument("--length", type=int, default=70, help="new tokens in a joke at most")
    parser.add_argument("--count", type=int, default=10, help="jokes")
    parser.add_argument(
        "--temperature", type=float, default=0.9, help="below 1 bolder, above 1 wilder; 0: the likeliest"
    )
    parser.add_argument("--top-k", type=int, default=0, help="choose among this many likeliest tokens; 0: all")
    parser.add_argument(
        "--top-p", type=float, default=0.95, help="choose among the likeliest tokens of this total share"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the choices")
    parser.add_argument("--output", type=Path, default=Path("jokes.txt"), help="file for the jokes")
    parser.add_argument("--smoke", action="store_true", help=f"defaults for a quick try: {SMOKE}")
    if parser.parse_known_args()[0].smoke:
        parser.set_defaults(**SMOKE)
    knobs = parser.parse_args()
    if knobs.length < 1 or knobs.count < 1:
        parser.error("--length and --count must be 1 or more")
    if knobs.temperature < 0 or knobs.top_k < 0 or not 0 < knobs.top_p <= 1:
        parser.error("--temperature and --top-k must not be negative, --top-p must lie between 0 and 1")
    return knobs


def load_model(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, from a folder or the hub; in bf16 on a GPU with bf16 units."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="sdpa")
    except (OSError, ValueError) as error:
        sys.exit(f"ERROR: cannot load model {name}: {str(error).splitlines()[0]}\nMake one with base.py instead.")
    if torch.cuda.is_available():
        native_bf16 = torch.cuda.get_device_capability() >= (8, 0)  # Ampere is the first
        model = model.to("cuda", torch.bfloat16 if native_bf16 else torch.float32)
    return model.eval(), tokenizer


def generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, knobs: argparse.Namespace) -> list[str]:
    """Return `knobs.count` continuations of the prompt, each up to the end of text, on one line."""
    end = tokenizer.eos_token_id
    prompt = [end, *tokenizer(knobs.prompt)["input_ids"]]  # a text starts where the one before ended
    longest = model.config.max_position_embeddings
    if len(prompt) + knobs.length > longest:
        sys.exit(
            f"ERROR: prompt ({len(prompt)} tokens) and --length {knobs.length} exceed the model's {longest} tokens"
        )
    start = torch.tensor([prompt], device=model.device)  # (1, prompt tokens)
    choice = {"temperature": knobs.temperature, "top_k": knobs.top_k, "top_p": knobs.top_p} if knobs.temperature else {}
    rows = model.generate(
        start.repeat(knobs.count, 1),
        attention_mask=torch.ones_like(start).repeat(knobs.count, 1),
        max_new_tokens=knobs.length,
        do_sample=knobs.temperature > 0,
        pad_token_id=end,
        **choice,
    )  # (count, prompt + new tokens)
    texts = tokenizer.batch_decode(rows[:, 1:], skip_special_tokens=True)
    return [" ".join(text.split()) for text in texts]


def main() -> None:
    """Load, generate, print, write."""
    knobs = parse_knobs()
    transformers_logging.disable_progress_bar()
    model, tokenizer = load_model(knobs.model)
    set_seed(knobs.seed)
    jokes = generate(model, tokenizer, knobs)
    for joke in jokes:
        print(f"- {joke}")
    beside = knobs.output.with_name(knobs.output.name + ".partial")
    beside.write_text("".join(f"{joke}\n" for joke in jokes), encoding="utf-8")
    beside.replace(knobs.output)
    print(f"{len(jokes)} jokes saved to {knobs.output}")


if __name__ == "__main__":
    main()
