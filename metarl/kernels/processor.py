"""What the processor can do, and which fast paths therefore pay. By its features, never by timing: results then repeat
on every machine of the same type.

Features are those that torch may use here: of /proc/cpuinfo, less what two variables of the environment switch off.

    ATEN_CPU_CAPABILITY    (default, avx2, avx512) limits torch's own kernels
    ONEDNN_MAX_CPU_ISA     (..., AVX2, AVX512_CORE, AVX512_CORE_BF16, AVX512_CORE_AMX, ...) limits oneDNN
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")  # names of /proc/cpuinfo

# oneDNN's instruction sets, weakest first, and the first one that has each feature
_ISAS = (
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX2_VNNI_2",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
    "AVX512_CORE_BF16",
    "AVX512_CORE_FP16",
    "AVX10_1_512",
    "AVX512_CORE_AMX",
    "AVX10_1_512_AMX",
    "AVX512_CORE_AMX_FP16",
    "AVX10_1_512_AMX_FP16",
)
_FIRST_ISA = {"avx2": "AVX2", "avx512f": "AVX512_CORE", "avx512_bf16": "AVX512_CORE_BF16"}
_FIRST_ISA |= dict.fromkeys(("amx_tile", "amx_bf16", "amx_int8"), "AVX512_CORE_AMX")


@dataclass(frozen=True)
class Processor:
    """The model's name, its maker ("AuthenticAMD", "GenuineIntel" or another), and which of FEATURES may be used."""

    model: str
    vendor: str
    features: frozenset[str]

    @property
    def has_amx(self) -> bool:
        """Whether products of matrices have units of their own, also for bfloat16."""
        return {"amx_tile", "amx_bf16"} <= self.features


def read_processor(cpuinfo: str, capability: str, environment: Mapping[str, str]) -> Processor:
    """From the text of /proc/cpuinfo, torch's capability ("DEFAULT", "AVX2", "AVX512", ...) and the environment."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    features = set(fields.get("flags", "").split()) & set(FEATURES)
    if "AVX512" not in capability:
        features &= {"avx2"} if capability == "AVX2" else set()
    limit = environment.get("ONEDNN_MAX_CPU_ISA", environment.get("DNNL_MAX_CPU_ISA", "")).upper()
    if limit in _ISAS:  # oneDNN ignores any other value
        features = {f for f in features if _ISAS.index(_FIRST_ISA[f]) <= _ISAS.index(limit)}
    model = fields.get("model name") or platform.processor() or platform.machine()
    return Processor(model, fields.get("vendor_id", ""), frozenset(features))


@cache
def this_processor() -> Processor:
    """Of this machine, as this process found it first: torch and oneDNN read the environment once too."""
    path = Path("/proc/cpuinfo")
    cpuinfo = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return read_processor(cpuinfo, torch.backends.cpu.get_cpu_capability(), os.environ)


def onednn_float32_pays(processor: Processor | None = None) -> bool:
    """Whether oneDNN multiplies large float32 matrices faster than torch's BLAS: with AMX, and on AMD's processors with
    AVX-512, half of whose vector units MKL leaves idle. Elsewhere they are about equally fast."""
    processor = processor or this_processor()
    return processor.has_amx or (processor.vendor == "AuthenticAMD" and "avx512f" in processor.features)


def bfloat16_pays(processor: Processor | None = None) -> bool:
    """Whether products in bfloat16 are faster than in float32 on the CPU: with AMX, and on AMD's processors with
    AVX512-BF16, 1.5 to 3 times. Without either they are two to three times as slow; others were not measured."""
    processor = processor or this_processor()
    return processor.has_amx or (processor.vendor == "AuthenticAMD" and "avx512_bf16" in processor.features)


def processor_description() -> dict[str, Any]:
    """What a run records of the processor, as JSON values: model, features, torch's capability, and the paths taken."""
    processor = this_processor()
    return {
        "model": processor.model,
        "vendor": processor.vendor,
        "machine": platform.machine(),
        "features": sorted(processor.features),
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "onednn_float32": torch.backends.mkldnn.is_available() and onednn_float32_pays(processor),
    }
