"""Cuts a scorer of one digit out of the classifier. Nothing is trained.

    python digit_scorer.py

Writes models/one.pt: [N, 1, 28, 28] in [0, 1] -> log-odds of the digit 1, above 0 exactly where its
probability is above 0.5. A probability is flat where it is nearly 0, and an edit that only just
leaves the digit gives images that still look like it; log-odds say how far to go.
"""

import torch
from torch import nn

import artifact

DIGIT = 1


class LogOdds(nn.Module):
    """log p - log(1 - p) of one class, from a classifier's logits."""

    def __init__(self, classifier: nn.Module, digit: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.digit = digit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.classifier(images)
        others = torch.cat([logits[:, : self.digit], logits[:, self.digit + 1 :]], 1)
        return logits[:, self.digit] - others.logsumexp(1)


def main() -> None:
    classifier = torch.jit.load(artifact.MODELS / "classifier.pt")
    artifact.write_torchscript(
        "one",
        LogOdds(classifier, DIGIT),
        kind="scorer",
        source=artifact.SOURCE.format(script="classifier.py and digit_scorer.py"),
    )


if __name__ == "__main__":
    main()
