"""The published encoder-decoder learns to write dates in ISO form, on data made on the spot.

"Sunday, May 5th, 1974" -> "1974-05-05". Held-out dates are never seen in training.

Run: python examples/translate_dates.py [--quick]
"""

import argparse
import time

import numtape as nt
from numtape import nn, optim
from numtape.training.data import PairData
from numtape.training.dates import SOURCE_CHARACTERS, TARGET_CHARACTERS, date_pairs
from numtape.training.tokens import EOS, CharTokenizer
from numtape.transformer import Transformer, greedy_decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model, one short epoch")
    quick = parser.parse_args().quick
    epochs, size, width, layers = (1, 100, 16, 1) if quick else (8, 8000, 64, 2)

    nt.random.seed(0)
    reader, writer = CharTokenizer(SOURCE_CHARACTERS), CharTokenizer(TARGET_CHARACTERS)
    pairs, held_out = date_pairs(train=size, held_out=8)
    data = PairData(
        [reader.encode(phrase) for phrase, _ in pairs],
        [writer.encode(date) for _, date in pairs],
        tokens_per_batch=2048,
        shapes=2 if quick else 3,
    )
    print(data, "\n")

    sizes = {"d_model": width, "heads": 4, "layers": layers, "d_ff": 4 * width}
    model = Transformer(reader.vocab_size, writer.vocab_size, **sizes, dropout=0.0)
    criterion = nn.CrossEntropyLoss(ignore_index=0)
    rate = optim.schedules.warmup_cosine(2e-3, 50, epochs * data.steps_per_epoch + 50)
    optimizer = optim.AdamW(model.parameters(), lr=rate)

    @nt.compile
    def step(source: nt.Tensor, target: nt.Tensor) -> nt.Tensor:
        loss = criterion(model(source, target[:, :-1]), target[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    batches = data.batches()
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        losses = [step(*next(batches)).item() for _ in range(data.steps_per_epoch)]
        seconds = time.perf_counter() - start
        print(f"epoch {epoch}  loss {sum(losses) / len(losses):.4f}  {seconds:.1f} s")

    print("\nA tape for each shape of batch:")
    print(step.explain(), "\n")
    sources = [reader.encode(phrase) for phrase, _ in held_out]
    for (phrase, date), source in zip(held_out, sources, strict=True):
        (ids,) = greedy_decode(model, [[*source, EOS]], max_length=12)
        found = writer.decode(ids)
        print(f"{'✓' if found == date else '✗'} {phrase:32} {found}")


if __name__ == "__main__":
    main()
