"""Messages about settings name each of them, and a misspelt word gets a hint."""

from types import SimpleNamespace

import pytest

from abaw.errors import AbawError, UsageError, check_settings, did_you_mean


@pytest.mark.parametrize(
    ("word", "hint"), [("vidoes", "; did you mean videos?"), ("seeed", "; did you mean seed?"), ("zzzz", "")]
)
def test_a_near_word_is_offered(word: str, hint: str) -> None:
    assert did_you_mean(word, ["videos", "frames", "seed"]) == hint


def test_every_wrong_setting_is_in_one_message() -> None:
    settings = SimpleNamespace(layers=-1, heads=2, mask_token="mean")
    rules = {
        "layers": (settings.layers >= 0, "0 or more"),
        "heads": (settings.heads > 0, "1 or more"),
        "mask_token": (settings.mask_token in ("zero", "learned"), "zero or learned"),
    }
    with pytest.raises(UsageError) as raised:
        check_settings("model.temporal", settings, rules)
    assert str(raised.value) == (
        "model.temporal.layers is 0 or more, got -1; model.temporal.mask_token is zero or learned, got 'mean'"
    )
    assert isinstance(raised.value, AbawError)
    check_settings("model.temporal", settings, {"heads": rules["heads"]})
