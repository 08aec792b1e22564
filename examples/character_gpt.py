"""A GPT that spells: it learns a nursery rhyme letter by letter, then says it by itself.

Run: python examples/character_gpt.py [--quick]
"""

import argparse

import numtape as nt
from numtape import nn, optim
from numtape.training.data import TextData
from numtape.training.tokens import CharTokenizer
from numtape.transformer import GPT, generate

VERSES = (
    "that lay in the house that Jack built",
    "that ate the malt",
    "that killed the rat",
    "that worried the cat",
    "that tossed the dog",
    "that milked the cow with the crumpled horn",
    "that kissed the maiden all forlorn",
    "that married the man all tattered and torn",
    "that woke the priest all shaven and shorn",
)
WHO = (
    "malt",
    "rat",
    "cat",
    "dog",
    "cow with the crumpled horn",
    "maiden all forlorn",
    "man all tattered and torn",
    "priest all shaven and shorn",
    "cock that crowed in the morn",
)


def rhyme() -> str:
    """This is the house that Jack built: each verse goes back through all before it."""
    verses = ["This is the house that Jack built."]
    for i, who in enumerate(WHO):
        verses.append("\n".join([f"This is the {who}", *VERSES[i::-1]]) + ".")
    return "\n\n".join(verses) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model and 20 steps")
    quick = parser.parse_args().quick
    steps, width, context = (20, 32, 32) if quick else (250, 96, 64)

    nt.random.seed(0)
    tokenizer = CharTokenizer(rhyme(), specials=False)
    data = TextData(tokenizer.encode(rhyme()), context, batch_size=16)
    model = GPT(tokenizer.vocab_size, context, width, heads=4, layers=2)
    rate = optim.schedules.warmup_cosine(3e-3, steps // 10, steps)
    optimizer = optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1)

    @nt.compile
    def step(inputs: nt.Tensor, targets: nt.Tensor) -> nt.Tensor:
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    for i in range(steps):
        loss = step(*data.batch(i))
        if i % (steps // 10) == 0 or i == steps - 1:
            print(f"step {i:3}  loss {loss.item():.3f} ")

    start = tokenizer.encode("This is the ")
    text = generate(model, start, tokens=30 if quick else 300, temperature=0.5)
    print("\n" + tokenizer.decode(text))


if __name__ == "__main__":
    main()
