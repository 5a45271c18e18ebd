"""What imports what: torch stays on the recording side, and no folder is importable under a bare name."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh process has loaded after a statement."""
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "thermodl.record",
        "thermodl.record.store",
        "thermodl.record.writer",
        "thermodl.record.archive",
        "thermodl.record.check",
        "thermodl.record.forecast",
        "thermodl.analyze",
        "thermodl.analyze.cli",
        "thermodl.analyze.check",
        "thermodl.viewer.cli",
        "thermodl.viewer.composition",
        "thermodl.cli",
    ],
)
def test_torch_stays_out(module: str) -> None:
    """In a fresh process, where no other test has imported it."""
    assert "torch" not in loaded_after(f"import {module}")


def test_charts_need_neither_torch_nor_streamlit() -> None:
    """Notebooks and reports use the charts without the app."""
    pytest.importorskip("altair")
    loaded = loaded_after("import thermodl.viewer.charts, thermodl.viewer.report")
    assert not loaded & {"torch", "streamlit"}


def test_looking_needs_nothing_that_computes() -> None:
    """Compiled kernels and scipy.stats would be most of what the viewer takes to be there."""
    pytest.importorskip("streamlit")
    assert not loaded_after("import thermodl.viewer.app") & {
        "scipy.stats",
        "thermodl.analyze.pipeline",
        "thermodl.analyze.series",
        "numba",
    }


def test_the_test_would_notice() -> None:
    """The check itself: a module that does import torch is seen."""
    pytest.importorskip("torch")
    assert "torch" in loaded_after("import thermodl.record.recorder")


def test_no_bare_packages() -> None:
    """`record`, `analyze`, `viewer` would load every file a second time under another name."""
    assert not {"record.store", "analyze.series", "viewer.charts"} & set(sys.modules)


def test_public_names_exist() -> None:
    """What the packages say they offer can be had."""
    pytest.importorskip("torch")
    import thermodl.analyze
    import thermodl.record

    for package in (thermodl.analyze, thermodl.record):
        for name in package.__all__:
            assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = thermodl.record.nothing


def test_every_analysis_keeps_its_contract() -> None:
    """Each module of analyze/physics says of itself what the pipeline and the viewer need, in both languages."""
    from thermodl.analyze import physics, versions
    from thermodl.analyze.settings import AnalysisSettings

    assert physics.names() == sorted(versions.ANALYSES)
    for name in physics.names():
        module = physics.load(name)
        assert set(module.USES) <= set(AnalysisSettings.model_fields)
        for text in ("TITLE", "FORMULA", "EXPLANATION", "METHOD", "REFERENCE"):
            assert getattr(module, text).strip(), (name, text)
        for text in ("TITLE_ZH", "EXPLANATION_ZH", "METHOD_ZH"):
            assert any("\u4e00" <= letter <= "\u9fff" for letter in getattr(module, text)), (name, text)
        assert callable(module.estimate)
        assert module.__doc__
        assert "(" in module.estimate.__doc__
