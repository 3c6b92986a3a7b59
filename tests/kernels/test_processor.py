"""Features are read from what the system says, less what the environment switches off; they alone choose the paths."""

from __future__ import annotations

import json

import pytest

from metarl.kernels.processor import (
    bfloat16_pays,
    onednn_float32_pays,
    processor_description,
    read_processor,
    this_processor,
)


def cpuinfo(model: str, vendor: str, flags: str) -> str:
    core = f"vendor_id\t: {vendor}\nmodel\t\t: 143\nmodel name\t: {model}\nflags\t\t: fpu {flags} sse4_2\n"
    return "\n".join(f"processor\t: {i}\n{core}" for i in range(2))


AVX512 = "avx avx2 avx512f"
SAPPHIRE_RAPIDS = cpuinfo("Intel(R) Xeon(R) 8481C", "GenuineIntel", f"{AVX512} avx512_bf16 amx_bf16 amx_tile amx_int8")
COOPER_LAKE = cpuinfo("Intel(R) Xeon(R) 8380H", "GenuineIntel", f"{AVX512} avx512_bf16")
ICE_LAKE = cpuinfo("Intel(R) Xeon(R) 8375C", "GenuineIntel", AVX512)
GENOA = cpuinfo("AMD EPYC 9R14", "AuthenticAMD", f"{AVX512} avx512_bf16")
MILAN = cpuinfo("AMD EPYC 7R13", "AuthenticAMD", "avx avx2")
ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd bf16\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("text", "capability", "onednn", "bfloat16"),
    [
        (SAPPHIRE_RAPIDS, "AVX512", True, True),
        (COOPER_LAKE, "AVX512", False, False),
        (ICE_LAKE, "AVX512", False, False),
        (GENOA, "AVX512", True, True),
        (GENOA, "AVX2", False, False),
        (MILAN, "AVX2", False, False),
        (ARM, "DEFAULT", False, False),
        ("", "DEFAULT", False, False),
    ],
    ids=["Sapphire Rapids", "Cooper Lake", "Ice Lake", "Genoa", "Genoa limited", "Milan", "Arm", "no /proc"],
)
def test_onednn_pays_with_amx_and_on_amd_with_avx512_and_bfloat16_with_amx_and_on_amd_with_its_instructions(
    text, capability, onednn, bfloat16
):
    processor = read_processor(text, capability, {})
    assert onednn_float32_pays(processor) is onednn
    assert bfloat16_pays(processor) is bfloat16


def test_the_model_and_its_features_are_read():
    processor = read_processor(SAPPHIRE_RAPIDS, "AVX512", {})
    assert (processor.model, processor.vendor) == ("Intel(R) Xeon(R) 8481C", "GenuineIntel")
    assert processor.features == {"avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"}


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("limit", "left"),
    [
        ("AVX512_CORE_AMX", {"avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"}),
        ("avx512_core_bf16", {"avx2", "avx512f", "avx512_bf16"}),
        ("AVX512_CORE", {"avx2", "avx512f"}),
        ("AVX2", {"avx2"}),
        ("SSE41", set()),
        ("DEFAULT", {"avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"}),
    ],
)
def test_what_onednn_may_not_use_is_no_feature(variable, limit, left):
    assert read_processor(SAPPHIRE_RAPIDS, "AVX512", {variable: limit}).features == left


@pytest.mark.parametrize(("capability", "left"), [("AVX2", {"avx2"}), ("DEFAULT", set())])
def test_what_torch_may_not_use_is_no_feature(capability, left):
    """As ATEN_CPU_CAPABILITY makes torch report."""
    assert read_processor(SAPPHIRE_RAPIDS, capability, {}).features == left


def test_the_description_of_this_machine_is_plain_json_and_repeats():
    description = processor_description()
    assert json.loads(json.dumps(description)) == description == processor_description()
    assert description["model"] == this_processor().model != ""
    assert set(description["features"]) == this_processor().features
