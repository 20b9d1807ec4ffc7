"""Makes transformers' Auto classes know our models, at no cost for whoever does not use transformers.

transformers finds a class by the name of its model type: two tables say how a type's configuration and processor are
called, and ``transformers.models.<type>`` holds them. Our types are written into these tables as soon as transformers
has them, and that module is served by `AutoFinder`, which imports our code when it is asked for a class of ours, not
before. So neither order of imports matters, and no import of ours happens inside one of transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

TYPES = "transformers.models."
TABLES = {
    "transformers.models.auto.configuration_auto": ("CONFIG_MAPPING_NAMES", "config"),
    "transformers.models.auto.processing_auto": ("PROCESSOR_MAPPING_NAMES", "processor"),
}
"""Modules with a table of names by model type, and the role of the classes in it."""


class AutoFinder(MetaPathFinder):
    """Finds modules of transformers that have, or are to be given, names of ours."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As every finder: None for all other modules."""
        if fullname in TABLES:
            spec = PathFinder.find_spec(fullname, path)
            if spec is not None and spec.loader is not None:
                spec.loader = _ThenWrite(spec.loader)
            return spec
        if fullname.startswith(TYPES) and fullname.count(".") == 2 and _is_ours(fullname.removeprefix(TYPES)):
            return spec_from_loader(fullname, _FamilyLoader())
        return None


class _ThenWrite(Loader):
    """Loads a module as its own loader does, which it then has, and writes our names into its table."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        _write_names(module)


class _FamilyLoader(Loader):
    """Loads ``transformers.models.<our type>``: the classes of that family, registered with the Auto classes."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        from marc.model.family import find_family

        family = find_family(module.__name__.removeprefix(TYPES))
        register(family)
        for role, name in family.ours.names.items():
            setattr(module, name, family.ours.load(role))


def install() -> None:
    """Makes the Auto classes know our model types, whether transformers is imported already or will be."""
    if not any(isinstance(finder, AutoFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, AutoFinder())
    for name in TABLES:
        if name in sys.modules:
            _write_names(sys.modules[name])


def register(family: Any) -> None:
    """Registers the classes of a family with the Auto classes."""
    from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

    config = family.ours.load("config")
    AutoConfig.register(family.model_type, config, exist_ok=True)
    AutoModel.register(config, family.ours.load("model"), exist_ok=True)
    AutoModelForImageTextToText.register(config, family.ours.load("generator"), exist_ok=True)
    AutoProcessor.register(config, family.ours.load("processor"), exist_ok=True)


def _write_names(module: ModuleType) -> None:
    from marc.model.family import families

    table, role = TABLES[module.__name__]
    for family in families():
        getattr(module, table)[family.model_type] = family.ours.names[role]


def _is_ours(model_type: str) -> bool:
    from marc.model.family import families

    return any(family.model_type == model_type for family in families())
