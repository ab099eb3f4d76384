"""A run goes on with the text that it began with, or not at all."""

import pytest
from tiny_pretraining import Listener, leave, recipe, write_corpus

from tunesmith.base.errors import DataError
from tunesmith.recipes import corpus_record
from tunesmith.recipes.corpus_record import check_corpus
from tunesmith.recipes.pretrain import pretrain
from tunesmith.text.corpus import Corpus, HubSplit


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_corpus_is_refused_and_nothing_is_lost(tmp_path):
    run, text = tmp_path / "run", write_corpus(tmp_path / "corpus.txt")
    with pytest.raises(SystemExit):
        pretrain(str(recipe(tmp_path, "mlm")), text, out=run, listener=Listener(4, leave))
    before, whole = files(run), text.read_text()
    text.write_text(whole[: len(whole) // 2])
    with pytest.raises(DataError) as caught:
        pretrain(str(recipe(tmp_path, "mlm")), text, out=run, resume=True)
    assert str(caught.value).startswith(f"{text}: ")
    assert "has changed since" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(run) == before
    text.write_text(whole)
    listener = Listener()
    pretrain(str(recipe(tmp_path, "mlm")), text, out=run, resume=True, listener=listener)
    assert listener.steps == [4, 5, 6]


def test_what_a_hub_id_stands_for_is_kept(tmp_path):
    old, new = (Corpus(hub=HubSplit("some/texts", None, "train", revision)) for revision in ("aaa", "bbb"))
    check_corpus("some/texts", {"train": old}, tmp_path)
    check_corpus("some/texts", {"train": old}, tmp_path)
    assert '"revision": "aaa"' in (tmp_path / corpus_record.CORPUS).read_text()
    with pytest.raises(DataError, match=r"^some/texts: .*has changed.*split train, revision aaa -> bbb"):
        check_corpus("some/texts", {"train": new}, tmp_path)


def test_a_split_that_comes_later_is_named(tmp_path):
    text = write_corpus(tmp_path / "corpus.txt")
    check_corpus(tmp_path, {"train": Corpus((text,))}, tmp_path)
    with pytest.raises(DataError, match="dev"):
        check_corpus(tmp_path, {"train": Corpus((text,)), "dev": Corpus((text,))}, tmp_path)
