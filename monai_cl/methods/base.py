"""Pretraining methods: a network, terms with weights, and at times a teacher."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, ClassVar

import torch
from monai.networks import eval_mode
from torch import Tensor, nn

from monai_cl import weights as handed_over
from monai_cl.methods._embedding_health import HEALTH
from monai_cl.methods._fitting import FittingImages, Size, spatial_dims, tried
from monai_cl.methods.extraction import MAPS, FeatureExtractor, Maps, run
from monai_cl.methods.teacher import Followed, Teacher, parameter_distance
from monai_cl.methods.term import Term
from monai_cl.networks import MomentumTeacher, decoder_modules, encoder_modules, input_channels, trial_size

TRAINS = ("all", "encoder", "decoder")
Pass = tuple[frozenset[str], int | None]  # what is needed, and how many blocks of the decoder run


class Method(nn.Module):
    r"""A network and the terms that it learns from.

    .. math:: L = \sum_i w_i L_i(f(x_i), x_i)

    with :math:`L_i` the terms, :math:`w_i` their weights and :math:`f` the network. ``network`` is the very network
    that will be fine-tuned; pretraining exports its state dict. Heads and the teacher live beside it, so a
    checkpoint of the method holds everything that learns.

    Only those parameters of the network learn that the terms depend on: with terms that look at the encoder alone the
    decoder is exported unchanged.

    A subclass with a ``forward`` of its own may leave out all arguments, and set ``network`` itself.

    Args:
        network: A MONAI encoder-decoder (see :func:`monai_cl.networks.encoder_features`); any network whose output
            has the size of its input for terms that need nothing but its output.
        terms: The terms by name; their losses are logged under it.
        weights: Weights by name of the term, 1 if none exists; a term of weight 0 is left out.
        teacher: Options of a momentum teacher of the network and of those terms that follow one.
        trains: ``"all"``; ``"encoder"``; or ``"decoder"``, which freezes the encoder: it runs without gradient and in
            evaluation mode throughout, so that its parameters and its running statistics stay bit for bit.
        image_size: Edge lengths of the images in voxels, or one for all axes, or a mapping of these by key of a
            batch; checked against the network here, so that a size it cannot take stops the run before it starts.

    Raises:
        ValueError: If the network is unknown or cannot take ``image_size``, no term has a weight, or options disagree.

    Example:
        >>> from monai.networks.nets import SegResNet
        >>> from monai_cl.methods import DenseTerm, Method, ReconstructionTerm
        >>> terms = {"dense": DenseTerm(on="decoder", stride=2), "restored": ReconstructionTerm()}
        >>> method = Method(SegResNet(out_channels=3), terms, weights={"restored": 0.5}, image_size=32)
    """

    network: nn.Module
    size_name: ClassVar[str] = "image_size"  # what the size of images is called in a configuration of this method
    tells_terms: ClassVar[bool] = True  # losses of terms are logged beside their sum
    renamed: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # beginnings of names in checkpoints of older versions

    def __init__(
        self,
        network: nn.Module | None = None,
        terms: Mapping[str, Term] | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        teacher: Teacher | None = None,
        trains: str = "all",
        image_size: Size | Mapping[str, Size] | None = None,
    ) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_rename)
        if trains not in TRAINS:
            raise ValueError(f"trains must be one of {TRAINS}, got {trains!r}")
        self.trains = trains
        if network is not None:
            self.network = network  # before the terms: optimisers of older checkpoints have its parameters first
        self.terms = nn.ModuleDict()
        self.teacher: MomentumTeacher | None = None
        self.teacher_options = teacher
        self.weights: dict[str, float] = {}
        self._fitting: dict[str, FittingImages] = {}
        if network is None:
            return
        self.weights = used_weights(terms or {}, weights or {})
        self.terms.update({name: term for name, term in (terms or {}).items() if name in self.weights})
        self._setup(image_size)
        if teacher is not None:
            self.teacher = MomentumTeacher(self._followed())
        self.train(self.training)

    def _setup(self, image_size: Size | Mapping[str, Size] | None) -> None:
        """Try the sizes, choose what learns, and let the terms make their heads."""
        maps: dict[str, tuple[Maps, bool]] = {}
        for key, (needs, blocks) in self._passes().items():
            size = image_size.get(key) if isinstance(image_size, Mapping) else image_size
            if needs == {"output"}:  # any network will do: what becomes of an image is seen when one comes
                maps[key] = Maps(), False
                continue
            maps[key] = tried(self.network, size, needs, blocks=blocks, size_name=self.size_name), size is not None
            self._fitting[key] = FittingImages(self.network, size)
        choose_what_learns(self.network, list(self._passes().values()), self.trains)
        for term in self._terms().values():
            shapes, sized = maps[term.key]
            term.setup(self.network, shapes, sized=sized)

    def _terms(self) -> dict[str, Term]:
        return dict(self.terms.items())  # type: ignore[arg-type]

    def _passes(self) -> dict[str, Pass]:
        """Union of what terms need by key, and the number of the decoder's blocks that run; ``None`` is all."""
        passes: dict[str, Pass] = {}
        for name, term in self._terms().items():
            if unknown := term.needs - set(MAPS):
                raise ValueError(f"needs of term {name!r} must be among {MAPS}, got {sorted(unknown)}")
            needs, blocks = passes.get(term.key, (frozenset(), 0))
            own = 0 if "blocks" not in term.needs else term.blocks
            passes[term.key] = needs | term.needs, None if None in (own, blocks) else max(own, blocks)  # type: ignore[type-var]
        return passes

    def _followed(self) -> Followed:
        if self.teacher_options is None:
            raise ValueError("teacher must be given to follow something, it is None")
        terms = nn.ModuleDict({name: term for name, term in self.terms.items() if getattr(term, "follows", False)})
        return Followed(self.network if self.teacher_options.of == "all" else None, terms)

    def _extractors(self) -> dict[str, FeatureExtractor]:
        """One for each key, new for each batch."""
        copy: Any = None if self.teacher is None else self.teacher.module
        twins = {} if copy is None else {id(self.terms[name]): twin for name, twin in copy.terms.items()}
        dims = spatial_dims(self.network)
        result = {}
        for key, (needs, blocks) in self._passes().items():
            forward = partial(run, needs=needs, blocks=blocks, fixed_encoder=self.trains == "decoder")
            result[key] = FeatureExtractor(
                self.network,
                forward=forward,
                check=partial(self._check, key),
                spatial_dims=dims,
                teacher=None if copy is None else copy.network,
                twins=twins,
            )
        return result

    def _check(self, key: str, images: Tensor, size_name: str) -> None:
        if key in self._fitting:
            name = self.size_name if size_name == "image_size" else size_name
            self._fitting[key](self.network, images, name)

    def train(self, mode: bool = True) -> "Method":
        """Set the mode of all but a frozen encoder, which stays in evaluation."""
        super().train(mode)
        if self.trains == "decoder":
            for module in self._encoder():
                module.eval()
        return self

    def _encoder(self) -> list[nn.Module]:
        needs = frozenset[str]().union(*(needs for needs, _ in self._passes().values()))
        return encoder_modules(self.network, levels="deepest" if needs == {"deepest"} else "all")

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Named losses of a batch, all 0-dim.

        Returns:
            ``"loss"``, the weighted sum, which is optimised; the loss of each term before it is weighted, under its
            name; and the signals of the terms.

        Raises:
            ValueError: If the batch lacks what a term needs, or the network cannot take its images.
        """
        extractors = self._extractors()
        losses: dict[str, Tensor] = {}
        signals: dict[str, Tensor] = {}
        for name, term in self._terms().items():
            losses[name], signals_of_term = term(extractors[term.key], batch)
            signals |= signals_of_term
        loss = torch.stack([self.weights[name] * term for name, term in losses.items()]).sum()
        parts = {name: term.detach() for name, term in losses.items()} if self.tells_terms else {}
        return {"loss": loss, **parts, **signals}

    def after_step(self, progress: float) -> None:
        """Move the teacher and the terms, once after each optimiser step, with the share of training that is done."""
        for term in self._terms().values():
            term.after_step(progress)
        if self.teacher is not None and self.teacher_options is not None:
            self.teacher_options.move(self.teacher, self._followed(), progress)

    @torch.no_grad()
    def probe(self, batches: Iterable[dict[str, Any]]) -> Mapping[str, float | Tensor]:
        """Health of the representation on batches that are not trained on; nothing where a method has no embedding.

        Runs on the weights that will be exported or their teacher, in evaluation mode, without gradient. Every
        process must call it with batches of its own.

        Returns:
            Numbers, or samples of numbers (N,) to be looked at as a distribution. The health of embeddings keeps its
            names for the first term that has one, and begins with the term's name for the others. With a teacher
            ``teacher_distance``, that of the parameters relative to their length.
        """
        probed = {name: term for name, term in self._terms().items() if term.probed}
        records: dict[str, list[Any]] = {name: [] for name in probed}
        with eval_mode(self):
            for batch in batches:
                extractors = self._extractors()
                for name, term in probed.items():
                    records[name].append(term.probe(extractors[term.key], batch))
        result: dict[str, float | Tensor] = {}
        for name, term in probed.items():
            summary = term.summary(records[name]) if records[name] else {}
            taken = result.keys() | (HEALTH if HEALTH & result.keys() else set())
            result |= {f"{name}_{one}" if one in taken else one: value for one, value in summary.items()}
        if self.teacher is not None and result:
            result["teacher_distance"] = parameter_distance(self._followed(), self.teacher.module)
        return result

    @property
    def steady_network(self) -> nn.Module:
        """The network that stands for what has been learnt: the teacher's where it has one of its own."""
        copy: Any = None if self.teacher is None else self.teacher.module
        return self.network if copy is None or copy.network is None else copy.network

    def causes_of_collapse(self) -> list[str]:
        """Settings of this method under which embeddings become alike, likeliest first."""
        causes = [cause for term in self._terms().values() for cause in term.causes_of_collapse()]
        if self.trains == "decoder":
            causes.append("a frozen encoder that was not pretrained, or has collapsed itself; look at its own health")
        return causes

    def touched(self) -> list[str]:
        """Names of the network's parameters that this run changes, or the one it started from has changed."""
        receipt = handed_over.receipt_of(self.network)
        before = set(receipt.touched) & set(receipt.matched) if receipt is not None else set()
        return [name for name, p in self.network.named_parameters() if p.requires_grad or name in before]


def used_weights(
    terms: Mapping[str, Any], weights: Mapping[str, float], *, named: str = "weight of term {!r}"
) -> dict[str, float]:
    """Weights above 0, by name of the term.

    Args:
        terms: The terms by name.
        weights: Their weights; 1 if none exists.
        named: Name of a weight in a message.

    Raises:
        ValueError: If a weight is negative, not finite or of no term, or none is above 0.
    """
    if unknown := [name for name in weights if name not in terms]:
        raise ValueError(f"weights must be of terms {list(terms)}, got {unknown}; name them as in terms")
    given = {name: float(weights.get(name, 1.0)) for name in terms}
    for name, value in given.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{named.format(name)} must be at least 0, got {value!r}")
    used = {name: value for name, value in given.items() if value > 0}
    if not used:
        raise ValueError(f"one of {', '.join(named.format(name) for name in given)} must be above 0, all are 0")
    return used


def _rename(module: nn.Module, state: dict[str, Any], prefix: str, *unused: Any) -> None:
    """Give the tensors of a checkpoint of an older version the names of now; those that are gone are dropped."""
    renamed: Mapping[str, tuple[str, ...]] = getattr(module, "renamed", {})
    known = module.state_dict().keys()
    for name in list(state):
        old = next((old for old in renamed if name.startswith(prefix + old)), None)
        if old is None:
            continue
        tensor, rest = state.pop(name), name.removeprefix(prefix + old)
        state.update({f"{prefix}{new}{rest}": tensor for new in renamed[old] if new + rest in known})


def choose_what_learns(network: nn.Module, passes: Sequence[Pass], trains: str) -> None:
    """Set ``requires_grad`` of the parameters of a network.

    Parameters that no map depends on would otherwise be counted as pretrained, and stop a run of several processes.
    Where the output itself is learned from, all stay as they are.

    Args:
        network: The network.
        passes: Needs of each pass, and the number of decoder blocks that run.
        trains: ``"all"``, ``"encoder"`` or ``"decoder"``.
    """
    needs = frozenset[str]().union(*(needs for needs, _ in passes))
    if needs.isdisjoint({"decoder", "output"}):
        network.requires_grad_(False)
        for module in _modules(network, passes):
            module.requires_grad_(True)
    elif "output" not in needs:
        _by_trying(network, passes)
    if trains == "all":
        return
    encoder = {id(p) for module in encoder_modules(network) for p in module.parameters()}
    for parameter in network.parameters():
        if (id(parameter) in encoder) != (trains == "encoder"):
            parameter.requires_grad_(False)


def _modules(network: nn.Module, passes: Sequence[Pass]) -> list[nn.Module]:
    """Modules that maps of the encoder and of blocks of the decoder depend on."""
    modules: list[nn.Module] = []
    for needs, blocks in passes:
        modules += encoder_modules(network, levels="all" if needs & {"encoder", "blocks"} else "deepest")
        modules += decoder_modules(network, blocks=blocks) if "blocks" in needs else []
    return modules


def _by_trying(network: nn.Module, passes: Sequence[Pass]) -> None:
    trial = deepcopy(network).cpu().train().requires_grad_(True)
    dims = spatial_dims(trial)
    size = trial_size(network, dims)
    used = []
    for needs, blocks in passes:
        maps = run(trial, torch.rand(2, input_channels(trial), *size), needs, blocks=blocks)
        used += maps.encoder if "encoder" in needs else maps.encoder[-1:] if "deepest" in needs else []
        used += maps.blocks if "blocks" in needs else []
        used += [maps.decoder] if "decoder" in needs else []
    torch.stack([one.square().mean() for one in used]).sum().backward()
    for own, copy in zip(network.parameters(), trial.parameters(), strict=True):
        own.requires_grad_(copy.grad is not None)
