from __future__ import annotations

import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from holdtrue.declaration import Declaration
from holdtrue.errors import ConfigError
from holdtrue.store import Store
from holdtrue.tuning._exchange import export_study, import_study
from holdtrue.tuning._space import Space

BOOSTED, LINEAR = "xgboost.XGBClassifier", "sklearn.linear_model.LogisticRegression"
SPACES = {
    BOOSTED: {
        "max_depth": {"int": [3, 10]},
        "learning_rate": {"float": [0.01, 0.3], "log": True},
        "base_score": {"float": [0.0, 0.99], "log": "reverse"},
    },
    LINEAR: {"C": {"float": [0.1, 10.0], "log": True}},
}


@pytest.fixture(autouse=True)
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


def declare(*estimators: str, metric: str = "log_loss") -> Declaration:
    return Declaration.model_validate(
        {
            "name": "flights",
            "task": "classification",
            "data": {"source": {"files": "flights.csv"}, "target": "late"},
            "model": {"candidates": [{"estimator": e, "space": SPACES[e]} for e in estimators]},
            "tune": {"metric": metric},
        }
    )


def journal(path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


@pytest.fixture
def log(tmp_path):
    """A study as a search leaves it: complete, pruned, failed, and one that was running."""
    path = tmp_path / "a.log"
    space = Space(declare(BOOSTED, LINEAR).model.candidates)
    study = optuna.create_study(
        study_name="flights",
        storage=journal(path),
        sampler=optuna.samplers.RandomSampler(seed=0),
        direction="minimize",
    )
    study.set_user_attr("metric", "log_loss")
    for number in range(12):
        trial = study.ask()
        space.suggest(trial)
        trial.set_user_attr("origin", "sampler")
        trial.report(0.6, 5)
        if number == 3:
            study.tell(trial, state=TrialState.FAIL)
        elif number == 4:
            study.tell(trial, state=TrialState.PRUNED)
        elif number != 11:
            study.tell(trial, 0.5 + number / 100)
    return path


def url_of(kind: str, folder) -> str:
    return f"sqlite:///{folder}/there.db" if kind == "sqlite" else str(folder / "there.log")


def open_storage(url: str):
    return RDBStorage(url) if url.startswith("sqlite") else journal(url)


def close(storage) -> None:
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


@pytest.fixture(params=["sqlite", "journal"])
def url(request, tmp_path) -> str:
    return url_of(request.param, tmp_path)


def test_an_exported_study_is_the_same_study(log, url):
    assert export_study(log, url) == "flights"
    storage = open_storage(url)
    there = optuna.load_study(study_name="flights", storage=storage)
    here = optuna.load_study(study_name="flights", storage=journal(log))
    shown = [
        [
            (t.number, t.state, t.value, t.params, t.distributions, t.user_attrs)
            for t in study.get_trials()
        ]
        for study in (here, there)
    ]
    assert shown[0] == shown[1]
    assert there.trials[4].intermediate_values == {5: 0.6}
    assert (there.best_trial.number, there.user_attrs) == (0, {"metric": "log_loss"})
    close(storage)


def test_a_study_is_exported_once_under_a_name(log, url):
    export_study(log, url)
    with pytest.raises(ConfigError, match="has a study flights already\n  give another name"):
        export_study(log, url)
    assert export_study(log, url, "again") == "again"
    storage = open_storage(url)
    assert {study.study_name for study in storage.get_all_studies()} == {"flights", "again"}
    close(storage)


def test_what_was_exported_can_be_imported(log, url, tmp_path):
    declaration = declare(BOOSTED, LINEAR)
    export_study(log, url)
    brought = import_study(Store(tmp_path / "store"), declaration, url)
    assert brought.path == tmp_path / "store" / "studies" / "flights" / "imported-flights.log"
    assert (brought.trials, brought.notes) == (9, ())
    space = Space(declaration.model.candidates)
    before = optuna.load_study(study_name=None, storage=journal(log))
    after = optuna.load_study(study_name=None, storage=journal(brought.path))
    settings = [
        {
            (t.value, repr(space.from_optuna(t.params)))
            for t in study.get_trials(states=[TrialState.COMPLETE])
        }
        for study in (before, after)
    ]
    assert settings[0] == settings[1]
    assert [path.name for path in brought.path.parent.iterdir()] == [brought.path.name]


def make_own(url: str, name: str = "mine", direction: str = "minimize", **bounds) -> None:
    """A study as people make them: bare names, and something that nobody here knows."""
    storage = open_storage(url)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=optuna.samplers.RandomSampler(seed=0),
        direction=direction,
    )

    def objective(trial):
        depth = trial.suggest_int("max_depth", 3, 25)
        trial.suggest_float("base_score", 0.1, 0.9999)
        trial.suggest_float("dropout", 0, 1)
        return depth / 10

    study.optimize(objective, n_trials=6)
    close(storage)


def test_a_study_of_ones_own_is_imported(url, tmp_path):
    make_own(url)
    declaration = declare(BOOSTED)
    brought = import_study(Store(tmp_path / "store"), declaration, url)
    assert brought.trials == 6
    assert brought.notes == ("not known and left out: dropout",)
    storage = open_storage(url)
    theirs = optuna.load_study(study_name="mine", storage=storage).trials
    ours = optuna.load_study(study_name=None, storage=journal(brought.path)).trials
    close(storage)
    space = Space(declaration.model.candidates)
    clipped = 0
    for one, other in zip(theirs, ours, strict=True):
        assert one.value == other.value
        assert other.params[f"{BOOSTED}:max_depth"] == one.params["max_depth"]
        assert 1 - other.params[f"{BOOSTED}:1-base_score"] == pytest.approx(
            one.params["base_score"]
        )
        setting, notes = space.adapt(BOOSTED, space.from_optuna(other.params).params)
        assert setting is not None
        assert 3 <= setting.params["max_depth"] <= 10
        clipped += any("clipped" in note for note in notes)
    assert clipped > 0


def test_a_study_is_imported_once(url, tmp_path):
    make_own(url)
    store = Store(tmp_path / "store")
    path = import_study(store, declare(BOOSTED), url).path
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"was imported already: .*imported-mine\.log\n  remove"):
        import_study(store, declare(BOOSTED), url)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("declaration", "options", "said"),
    [
        (declare(BOOSTED, metric="roc_auc"), {}, "is to minimize, but roc_auc is better when high"),
        (declare(LINEAR), {}, "nothing in the study mine is of use: 6 of 6 trials have no known"),
        (declare(BOOSTED, LINEAR), {}, "nothing in the study mine is of use"),
        (declare(BOOSTED), {"name": "min"}, "has no study min\n  it has mine"),
    ],
    ids=["direction", "parameters", "candidates", "name"],
)
def test_a_study_that_does_not_fit(url, tmp_path, declaration, options, said):
    make_own(url)
    with pytest.raises(ConfigError) as refused:
        import_study(Store(tmp_path / "store"), declaration, url, **options)
    assert said in str(refused.value)
    assert not (tmp_path / "store").exists()


def test_a_study_about_another_metric(url, tmp_path):
    make_own(url)
    storage = open_storage(url)
    optuna.load_study(study_name="mine", storage=storage).set_user_attr("metric", "brier")
    close(storage)
    with pytest.raises(ConfigError, match="is about brier, the declaration about log_loss"):
        import_study(Store(tmp_path / "store"), declare(BOOSTED), url)


def test_one_of_several_studies_must_be_named(url, tmp_path):
    make_own(url)
    make_own(url, "other")
    with pytest.raises(ConfigError, match="has 2 studies; say which by --study\n  it has mine, ot"):
        import_study(Store(tmp_path / "store"), declare(BOOSTED), url)
    assert import_study(Store(tmp_path / "store"), declare(BOOSTED), url, "other").trials == 6


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///{folder}/none.db", "there is no file {folder}/none.db"),
        ("{folder}/none.log", "{folder}/none.log is no storage of studies"),
        ("{folder}", "{folder} is no storage of studies"),
        ("nothing://there", "nothing://there cannot be used as a storage of studies: Can't load"),
        (
            "postgresql+psycopg2://me:secret@127.0.0.1:1/there",
            "postgresql+psycopg2://me:***@127.0.0.1:1/there ",
        ),
        ("{folder}/bad.log", "{folder}/bad.log cannot be used as an Optuna journal file"),
        ("{folder}/empty.log", "{folder}/empty.log has no study"),
    ],
    ids=["no database", "no journal", "folder", "scheme", "password", "not a journal", "empty"],
)
def test_no_such_storage(tmp_path, url, said):
    (tmp_path / "bad.log").write_text("one\ntwo\nthree\n")
    (tmp_path / "empty.log").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError) as refused:
        import_study(Store(tmp_path / "store"), declare(BOOSTED), url.format(folder=tmp_path))
    assert str(refused.value).startswith(said.format(folder=tmp_path))
    assert "secret" not in str(refused.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("url", ["sqlite:////none/there.db", "/none/there.log"])
def test_a_place_that_cannot_be_written_to(log, url):
    with pytest.raises(ConfigError, match=r"as a storage of studies|is no storage of studies"):
        export_study(log, url)


def test_a_study_is_not_exported_into_itself(log):
    before = log.read_bytes()
    with pytest.raises(ConfigError, match="is the log of the study itself"):
        export_study(log, str(log), "other")
    assert log.read_bytes() == before
