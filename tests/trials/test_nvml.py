"""The meters of a real card, through a stand-in for the library whose names are the real one's."""

import importlib
import os

import pytest
from nvml_fake import MadeUpCard, MadeUpNvml

from trials.errors import UnsupportedError
from trials.machine.gpu_source import GpuSource, Reason
from trials.machine.gpus import gpu_facts
from trials.machine.nvml import cards, load_pynvml, meter, session, why_no_energy

MINE = os.getpid()


def source_over(nvml: MadeUpNvml, uuid: str = "GPU-1111") -> GpuSource:
    with meter(uuid=uuid, load=lambda: nvml) as source:
        assert source is not None
        return source


def test_names_that_we_call_are_the_real_librarys() -> None:
    """So that a call that the library renames fails here and not at a user's."""
    pynvml = importlib.import_module("pynvml")
    used = [name for name in vars(MadeUpNvml) if name.lower().startswith("nvml")]

    assert len(used) > 20
    assert [name for name in used if not hasattr(pynvml, name)] == []
    constants = [name for name in used if name.startswith("NVML_")]
    assert {name: getattr(pynvml, name) for name in constants} == {
        name: getattr(MadeUpNvml, name) for name in constants
    }


def test_our_reasons_are_the_real_librarys() -> None:
    pynvml = importlib.import_module("pynvml")

    for reason, name in {
        Reason.IDLE: "GpuIdle",
        Reason.CHOSEN_CLOCKS: "ApplicationsClocksSetting",
        Reason.POWER_CAP: "SwPowerCap",
        Reason.HW_SLOWDOWN: "HwSlowdown",
        Reason.SYNC_BOOST: "SyncBoost",
        Reason.THERMAL: "SwThermalSlowdown",
        Reason.HW_THERMAL: "HwThermalSlowdown",
        Reason.POWER_BRAKE: "HwPowerBrakeSlowdown",
        Reason.DISPLAY_CLOCKS: "DisplayClockSetting",
    }.items():
        assert int(reason) == getattr(pynvml, f"nvmlClocksEventReason{name}")


def test_real_library_without_a_driver_says_that_there_is_no_gpu() -> None:
    try:
        found = cards()
    except UnsupportedError as error:
        assert str(error).startswith("no NVIDIA GPU")  # noqa: PT017 - either is right
    else:
        assert all(card.uuid.startswith("GPU-") for card in found)


def test_missing_library_says_what_to_install() -> None:
    def load() -> object:
        raise ImportError("No module named 'pynvml'")

    with pytest.raises(UnsupportedError, match="pip install nvidia-ml-py"), session(load):
        pytest.fail("there is nothing to enter")

    with meter(load=load) as source:
        assert source is None


def test_driver_that_does_not_answer_costs_no_trial() -> None:
    nvml = MadeUpNvml(error="Driver Not Loaded")

    with meter(load=lambda: nvml) as source:
        assert source is None

    assert why_no_energy(load=lambda: nvml).startswith("no NVIDIA GPU: no driver answers")
    assert dict(gpu_facts(lambda: nvml)) == {"gpu": "none", "gpu_driver": "none"}


def test_library_is_left_as_often_as_it_was_entered() -> None:
    nvml = MadeUpNvml(MadeUpCard())

    with meter(uuid="GPU-1111", load=lambda: nvml):
        assert nvml.users == 1
    with pytest.raises(KeyError), meter(uuid="GPU-1111", load=lambda: nvml):
        raise KeyError("a worker broke")
    cards(lambda: nvml)
    assert nvml.users == 0


def test_card_that_is_not_there_has_no_meters() -> None:
    with meter(uuid="GPU-9999", load=lambda: MadeUpNvml(MadeUpCard())) as source:
        assert source is None


def test_energy_is_in_joules_and_counts_on() -> None:
    card = MadeUpCard(energy_mj=2_500)
    source = source_over(MadeUpNvml(card))

    before = source.energy()
    card.energy_mj = 7_500
    after = source.energy()

    assert (before.total_j, after.total_j) == (2.5, 7.5)
    assert after.at_s > before.at_s


def test_everything_else_is_read_at_once() -> None:
    card = MadeUpCard(reasons=0x4 | 0x40, field_values={74: 12, 270: 5})

    state = source_over(MadeUpNvml(card)).state()

    assert (state.sm_clock_mhz, state.memory_clock_mhz) == (1_980, 2_619)
    assert (state.temperature_c, state.memory_bytes) == (55, 7_000_000)
    assert state.reasons == Reason.POWER_CAP | Reason.HW_THERMAL
    assert state.held_back == ((Reason.POWER_CAP, 12), (Reason.HW_THERMAL, 5))
    assert state.others == 0


def test_what_a_card_does_not_tell_is_none() -> None:
    silent = ("nvmlDeviceGetClockInfo", "nvmlDeviceGetTemperature", "nvmlDeviceGetMemoryInfo")
    source = source_over(MadeUpNvml(MadeUpCard(energy_mj=None, mig=None, silent=silent)))

    state = source.state()

    assert source.energy().total_j is None
    assert (state.sm_clock_mhz, state.temperature_c, state.memory_bytes) == (None, None, None)


@pytest.mark.parametrize(
    ("pids", "others"),
    [
        ((MINE,), 0),
        ((MINE, 7, 8), 2),
        ((4_000_000,), 0),  # a container: ours by a number of the host
        ((4_000_000, 4_000_001), 1),
        ((), 0),
    ],
)
def test_processes_of_others_are_counted(pids: tuple[int, ...], others: int) -> None:
    assert source_over(MadeUpNvml(MadeUpCard(pids=pids))).state().others == others


def test_energy_of_a_part_of_a_card_is_nobodys() -> None:
    whole = MadeUpCard(mig=1)
    part = MadeUpCard(uuid="MIG-1", name="part", parent=whole)
    nvml = MadeUpNvml(whole, parts=[part])

    source = source_over(nvml, "MIG-1")

    assert source.identity.is_mig
    assert source.identity.name == "NVIDIA H100"
    assert source.energy().total_j is None
    assert source.state().sm_clock_mhz == 1_980


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (MadeUpCard(), ""),
        (MadeUpCard(mig=1), "that of all its parts (MIG)"),
        (MadeUpCard(energy_mj=None, name="Tesla P4"), "Tesla P4 has no energy counter"),
    ],
)
def test_why_there_is_no_energy_is_said(card: MadeUpCard, said: str) -> None:
    found = why_no_energy(load=lambda: MadeUpNvml(card))

    assert said in found
    assert bool(found) == bool(said)


def test_cards_are_described() -> None:
    (card,) = cards(lambda: MadeUpNvml(MadeUpCard(pids=(7, 8))))

    assert (card.uuid, card.name, card.compute_capability) == ("GPU-1111", "NVIDIA H100", "9.0")
    assert (card.driver, card.is_mig, card.is_persistent, card.processes) == (
        "580.1",
        False,
        True,
        2,
    )


def test_facts_of_a_record_name_all_cards() -> None:
    nvml = MadeUpNvml(MadeUpCard(), MadeUpCard(uuid="GPU-2", name="NVIDIA L4", mig=None))

    assert dict(gpu_facts(lambda: nvml)) == {
        "gpu": "NVIDIA H100, NVIDIA L4",
        "gpu_driver": "580.1",
        "gpu_mig": "off, off",
    }


@pytest.mark.gpu
def test_energy_of_a_real_card_grows() -> None:
    reason = why_no_energy()
    if reason:
        pytest.skip(reason)
    import time

    with session(load_pynvml), meter() as source:
        assert source is not None
        before = source.energy().total_j
        time.sleep(1.0)
        after = source.energy().total_j
        assert before is not None
        assert after is not None
        assert 1 < after - before < 2_000  # watts of any card, idle or busy
