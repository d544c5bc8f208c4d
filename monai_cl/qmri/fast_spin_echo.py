"""Fast spin echo with a real echo train, plain or after one or two inversions."""

from collections.abc import Callable

import torch
from torch import Tensor

from monai_cl.qmri._elementwise import Kernel, Parameter, as_count, evaluate
from monai_cl.qmri._preparation import (
    Terms,
    double_inversion_terms,
    inversion_terms,
    prepared,
    recovered,
    saturation_terms,
)
from monai_cl.qmri.constraints import check_double_inversion, check_fast_spin_echo, check_inversion
from monai_cl.qmri.extended_phase_graph import EchoReadout


def fast_spin_echo(
    pd: Tensor,
    t1: Tensor,
    t2: Tensor,
    *,
    tr: Parameter,
    echo_spacing: Parameter,
    train_length: Parameter,
    effective_echo: Parameter,
    refocusing_angle: Parameter = 180.0,
    ti: Parameter | tuple[Parameter, Parameter] | list[Parameter] | None = None,
    b1: Parameter = 1.0,
    efficiency: Parameter = 1.0,
    signed: bool = False,
) -> Tensor:
    r"""Fast spin echo (TSE, RARE): the echo that fills the centre of k-space sets the contrast.

    $$S = \rho \, | M_z | \, E_k, \qquad M_z = 1 - e^{-(TR - TL)/T_1}$$

    with the echo amplitude $E_k$ of the extended phase graph (see
    :func:`~monai_cl.qmri.extended_phase_graph.echo_amplitudes`), echo number $k$ = ``effective_echo``, echo time
    $k\,\tau$ and train duration $TL$ = ``train_length`` $\tau$. At 180 degrees $E_k = e^{-TE/T_2}$. After an inversion
    (FLAIR, STIR) or two (DIR) $M_z$ is that of :func:`~monai_cl.qmri.inversion.inversion_recovery` or
    :func:`~monai_cl.qmri.inversion.double_inversion_recovery`.

    In float32 terms of the amplitude's polynomial that matter less than 1e-6 are left out; float64 maps give all.

    The train is taken to leave no longitudinal magnetisation. Against a simulation that carries it over, with
    refocusing angles of 120 degrees and more, this costs less than 1 % of $\rho$ in brain tissue with transmit fields
    within 20 %, and up to 2.5 % in fluid at TR = 3 s.

    Args:
        pd: Proton density, any unit; the signal has the same unit.
        t1: Longitudinal relaxation time in seconds, broadcastable to ``pd``.
        t2: Transverse relaxation time in seconds.
        tr: Repetition time in seconds.
        echo_spacing: Time between echoes in seconds.
        train_length: Number of echoes in a train.
        effective_echo: Number of the echo at the centre of k-space, counted from 1.
        refocusing_angle: Angle of the refocusing pulses in degrees.
        ti: Time in seconds from the inversion to the excitation; a pair ``(ti1, ti2)`` for two inversions, the first
            interval between them; ``None`` for no inversion.
        b1: Transmit field relative to nominal, number or map; it scales excitation and refocusing, not the (adiabatic)
            inversion.
        efficiency: Share of the magnetisation that each inversion inverts, in (0, 1].
        signed: Keep the sign of the longitudinal magnetisation instead of the magnitude.

    Returns:
        Signal of the broadcast shape; 0 where a relaxation time is not positive and finite.

    Raises:
        ConstraintError: If the train does not fit into the repetition time, or the effective echo not into the train.

    Source:
        Hennig et al., MRM 3 (1986) 823; phase graph Hennig, J. Magn. Reson. 78 (1988) 397.

    Example:
        >>> t1, t2 = torch.tensor([0.86, 1.45, 4.3]), torch.tensor([0.07, 0.08, 2.0])   # white, grey, fluid
        >>> train = dict(echo_spacing=0.01, train_length=16, effective_echo=10, refocusing_angle=150.0)
        >>> s = fast_spin_echo(torch.ones(3), t1, t2, tr=5.0, **train)
        >>> bool((s.diff() > 0).all())
        True
    """
    check_fast_spin_echo(
        tr=tr,
        echo_spacing=echo_spacing,
        train_length=train_length,
        effective_echo=effective_echo,
        refocusing_angle=refocusing_angle,
    )
    terms = _preparation(tr, as_count(train_length) * echo_spacing, ti, efficiency)
    exact = any(torch.as_tensor(m).dtype == torch.float64 for m in (pd, t1, t2))
    readout = EchoReadout.of(echo_spacing, effective_echo, refocusing_angle, b1, exact=exact)
    return evaluate(
        _kernel(readout, len(terms)),
        pd,
        (t1, t2),
        fields=readout.fields,
        parameters=(*terms, *readout.parameters),
        prepare=_prepare(readout, len(terms)),
        signed=signed,
    )


def _preparation(
    tr: Parameter,
    last_echo: Parameter,
    ti: Parameter | tuple[Parameter, Parameter] | list[Parameter] | None,
    efficiency: Parameter,
) -> Terms:
    if ti is None:
        return saturation_terms(tr - last_echo)
    if isinstance(ti, (tuple, list)):  # configs write a list
        check_double_inversion(tr=tr, ti1=ti[0], ti2=ti[1], last_echo=last_echo, efficiency=efficiency)
        return double_inversion_terms(tr - last_echo, ti[0], ti[1], efficiency)
    check_inversion(tr=tr, ti=ti, last_echo=last_echo, efficiency=efficiency)
    return inversion_terms(tr - last_echo, ti, efficiency)


def _prepare(readout: EchoReadout, terms: int) -> Callable[..., tuple[Tensor, ...]]:
    fields = len(readout.fields)

    def prepare(*numbers: Tensor) -> tuple[Tensor, ...]:
        preparation, train = numbers[fields : fields + terms], numbers[fields + terms :]
        return *prepared(preparation), *readout.prepare(*numbers[:fields], *train)

    return prepare


def _kernel(readout: EchoReadout, terms: int) -> Kernel:
    def kernel(t1: Tensor, t2: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        return recovered(t1, *rest[: terms + 1]), *readout.amplitude(t1, t2, *rest[terms + 1 :])

    return kernel
