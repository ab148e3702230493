"""Classification by learned prototypes: a Hopfield layer learns what it stores, and what that stands for."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import Array, as_flag, as_number, as_whole, ignoring_float_errors
from sparsehopfield._engine.progress import progress_bar
from sparsehopfield._engine.separations import as_choice
from sparsehopfield._engine.structure import Structure, as_structure, can_exclude
from sparsehopfield._engine.text import short
from sparsehopfield.estimators._base import (
    as_random,
    check_some_weight,
    checked_weights,
    refuse_signed_weights,
    restores,
    validated,
)
from sparsehopfield.estimators._classes import checked_classes, class_positions, classes_of_all_parts
from sparsehopfield.functional import softmax
from sparsehopfield.layers import HopfieldLayer, Module
from sparsehopfield.losses import softmax_loss
from sparsehopfield.optim import AdamW, ExponentialDecay, clip_gradients

STARTS = ("k-means", "rows")
#: The parameters that are those of the network.
NETWORK = ("n_prototypes", "beta", "learn_beta", "separation", "structure", "dtype")
MOST = 2**20  # prototypes
AT_ONCE = 4096  # rows in one forward pass that has no backward pass
CERTAINTY = 3.0  # what the logit of a prototype's own class begins with
LEAST = 1e-30  # of a sample weight, in the unit of the mean or the largest
APART = 0.01  # by how much prototypes begin apart that begin at one row


class PrototypeNetwork(Module):
    """Rows -> association with learned prototypes by distance -> the mixture of what these stand for: logits.

    The association is that of a `HopfieldLayer` that projects nothing: its stored patterns are the prototypes, its
    pattern projections their logits. Its scores are dot products; rows get one feature more, 1, and prototypes
    -|w|^2 / 2, so that scores are those of euclidean similarity. That feature is no parameter of its own.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        n_prototypes: int,
        beta: float,
        learn_beta: bool,
        separation: Separation,
        structure: Structure | None,
        dtype: str,
    ) -> None:
        super().__init__({}, dtype, 0)
        static = {f"{role}_as_static": True for role in ("stored_pattern", "state_pattern", "pattern_projection")}
        plain = {
            f"normalize_{role}{affine}": False
            for role in ("stored_pattern", "state_pattern", "pattern_projection")
            for affine in ("", "_affine")
        }
        self.layer = HopfieldLayer(
            width + 1,
            lookup_weights_as_separated=True,
            pattern_projection_size=classes,
            quantity=n_prototypes,
            disable_out_projection=True,
            scaling=beta / width,
            learnable_scaling=learn_beta,
            separation=separation,
            structure=structure,
            dtype=dtype,
            random_state=0,
            **static,
            **plain,
        )
        self._inner = {"layer": self.layer}

    @property
    def prototypes(self) -> Array:
        """Return the prototypes, (P, d): those of the layer, without the feature that makes scores distances."""
        return cast(Array, self.layer.lookup_weights.value[0, :, :-1])

    @property
    def logits(self) -> Array:
        """Return what the prototypes stand for, (P, classes)."""
        assert self.layer.target_weights is not None
        return cast(Array, self.layer.target_weights.value[0])

    def begin(self, prototypes: Array, logits: Array) -> None:
        """Set both."""
        assert self.layer.target_weights is not None
        self.layer.target_weights.change(logits)
        self.layer.lookup_weights.change(np.concatenate([prototypes, np.zeros((len(prototypes), 1))], axis=1))
        self.tie()

    def tie(self) -> None:
        """Set the last feature of each prototype w to -|w|^2 / 2, after these have moved."""
        lookup = self.layer.lookup_weights
        lookup.value[0, :, -1] = -(self.prototypes**2).sum(axis=1) / 2
        lookup.changes += 1

    def forward(self, input: Array, *, train: bool = False) -> Array:
        """Compute the logits of rows (N, d), (N, classes)."""
        return self.layer.forward(self._extended(input), train=train)[0]

    def backward(self, grad: Any, need_input_grad: bool = False) -> None:
        """Add to the parameters' gradients, from that in the logits; rows are data and get none."""
        self.layer.backward(np.asarray(grad, self.dtype)[None], need_input_grad=False)
        g = self.layer.lookup_weights.grad
        assert g is not None
        g[0, :, :-1] -= g[0, :, -1:] * self.prototypes  # by way of -|w|^2 / 2
        g[0, :, -1] = 0

    def weights(self, rows: Array) -> Array:
        """Compute the weights of the prototypes for rows (N, d), (N, P)."""
        made = self.layer.associations(self._extended(rows))
        dense = made if isinstance(made, np.ndarray) else made.toarray()
        return cast(Array, dense.reshape(len(rows), -1))

    def _extended(self, rows: Array) -> Array:
        return np.concatenate([rows, np.ones((len(rows), 1), self.dtype)], axis=1, dtype=self.dtype)


@dataclass(frozen=True)
class PrototypeUsage:
    """The use of each prototype by the rows of the last fitting.

    Attributes
    ----------
    weight : ndarray, shape (n_prototypes,)
        Its mean weight; their sum is 1.
    rows : ndarray, shape (n_prototypes,)
        The share of rows in whose answer it has weight; 1 with softmax.
    nearest : ndarray, shape (n_prototypes,)
        The share of rows of which no other has more weight; their sum is 1.

    See Also
    --------
    HopfieldPrototypeClassifier : Learn prototypes; its `usage_` is this record.

    Examples
    --------
    >>> X, y = [[0.0], [0.2], [1.0], [1.2], [3.0], [3.2]], ["a", "a", "b", "b", "a", "a"]
    >>> usage = HopfieldPrototypeClassifier(3, epochs=5, random_state=0).fit(X, y).usage_
    >>> print(usage)
    PrototypeUsage(3 of 3 prototypes used, 1.0 with weight for a row)
    >>> usage.nearest.round(3), usage.mean_support
    (array([0.333, 0.333, 0.333]), 1.0)
    """

    weight: NDArray[np.float64]
    rows: NDArray[np.float64]
    nearest: NDArray[np.float64]

    @property
    def n_used(self) -> int:
        """Return how many prototypes are used: those that are nearest to some row."""
        return int(np.count_nonzero(self.nearest))

    @property
    def mean_support(self) -> float:
        """Return how many prototypes have weight for a row, on average."""
        return float(self.rows.sum())

    def __str__(self) -> str:
        return (
            f"PrototypeUsage({self.n_used} of {len(self.weight)} prototypes used, "
            f"{self.mean_support:.1f} with weight for a row)"
        )


class HopfieldPrototypeClassifier(ClassifierMixin, BaseEstimator):
    """Classifier by association with a few prototypes that are learned, and with what they stand for.

    A `HopfieldLayer` that looks up in learned patterns: a row's logits are the prototypes' logits, weighted as the
    association weighs the prototypes. Prototypes, logits and the inverse temperature are trained by AdamW on cross
    entropy. Prototypes are points among the rows, so that they can be looked at.

    Parameters
    ----------
    n_prototypes : int, from 1 to 2**20
        How many patterns the layer stores; at the start divided among the classes as these are among the rows.
    beta : float, positive
        The inverse temperature of the association at the start, in the unit of one over the rows' mean squared distance
        from their centre: scores are -beta |x - w|^2 / 2 of rows that are scaled so.
    learn_beta : bool
        Whether beta is learned, too; False leaves it as it is at the start.
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Normmax
        How scores become weights: softmax gives every prototype some, sparse maps give most none. A prototype to
        which a sparse map gives no weight learns nothing from that row.
    structure : Structure, optional
        As `TopK(k)`: the k nearest prototypes answer. None of features, and none that goes by the places of rows, as
        rows have none.
    init : {"k-means", "rows"}
        What the prototypes of a class begin as: centres of its rows (`sklearn.cluster.KMeans`), or some of its rows.
    epochs : int, at least 1
        Passes over the training data.
    batch_size : int, at least 1
        How many rows each step of the optimiser takes.
    learning_rate : float, at least 0
        Step size of the optimiser, AdamW, in the first epoch.
    learning_rate_decay : float, positive
        The learning rate's factor from epoch to epoch.
    weight_decay : float, at least 0
        The share of prototypes and logits, times the learning rate, that each step takes away: it draws prototypes to
        the centre of all rows, and logits to 0. Beta is left alone.
    max_norm : float, at least 0, optional
        The gradient of a step is scaled down where its norm exceeds this; None leaves it as it is.
    random_state : int, RandomState or None
        Draws the start and the order of rows; an int makes `fit` repeatable.
    verbose : int
        Above 0: a progress bar (tqdm) with loss and accuracy.
    dtype : {"float32", "float64"}
        What the network computes in.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes, sorted.
    prototypes_ : ndarray of shape (n_prototypes, d)
        In the features of the rows.
    prototype_logits_ : ndarray of shape (n_prototypes, n_classes)
        What they stand for.
    prototype_classes_ : ndarray of shape (n_prototypes,)
        The class of the largest logit.
    beta_ : float
        The inverse temperature, in the unit of `beta`.
    usage_ : PrototypeUsage
        How many prototypes are used, and how often, of the rows of the last fitting.
    history_ : dict of str to ndarray of shape (epochs,)
        "loss" and "accuracy" as met in training, before each step.
    weights_ : dict of str to ndarray
        The network.
    mean_, scale_ : ndarray of shape (d,), float
        What is subtracted from rows, and the one number that they are divided by.
    n_features_in_ : int
        The number of features of the fitted rows.
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        Their names, where the rows were a data frame that has some.

    See Also
    --------
    HopfieldClassifier : Store all rows and learn nothing.
    sparsehopfield.layers.HopfieldLayer : The layer, to build a network of one's own.
    PrototypeUsage : What `usage_` holds.

    Notes
    -----
    With softmax this is a mixture of experts that each say one thing, gated by distance; with sparsemax most gates are
    closed. At a large beta the nearest prototype answers alone, as in learning vector quantisation (Sato & Yamada
    1996), from which it differs in the loss, and in that a prototype may stand for several classes.

    References
    ----------
    Ramsauer et al. 2021, "Hopfield networks is all you need", of the layer; Sato & Yamada 1996, "Generalized learning
    vector quantization"; Kohonen 1990, "Improved versions of learning vector quantization".

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = load_iris(return_X_y=True)
    >>> model = HopfieldPrototypeClassifier(6, epochs=5, random_state=0)
    >>> bool(cross_val_score(model, X, y).mean() > 0.93)
    True
    >>> model = model.fit(X, y)
    >>> model.prototypes_.shape, model.prototype_classes_.tolist()
    ((6, 4), [0, 0, 1, 1, 2, 2])
    """

    history_: dict[str, Array]
    _optimizer_states: list[dict[str, Array]] | None
    _options: dict[str, Any]

    def __init__(
        self,
        n_prototypes: int = 30,
        beta: float = 10.0,
        learn_beta: bool = True,
        separation: Separation = "sparsemax",
        structure: Structure | None = None,
        init: str = "k-means",
        epochs: int = 30,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        learning_rate_decay: float = 0.93,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        random_state: Any = None,
        verbose: int = 0,
        dtype: str = "float32",
    ) -> None:
        self.n_prototypes = n_prototypes
        self.beta = beta
        self.learn_beta = learn_beta
        self.separation = separation
        self.structure = structure
        self.init = init
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_decay = learning_rate_decay
        self.weight_decay = weight_decay
        self.max_norm = max_norm
        self.random_state = random_state
        self.verbose = verbose
        self.dtype = dtype

    # --- fitting ------------------------------------------------------------------------------------

    @restores
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train prototypes.

        Parameters
        ----------
        X : array_like of shape (M, d)
            One row a sample.
        y : array_like of shape (M,)
            The class of each row.
        sample_weight : array_like of shape (M,), at least 0, optional
            How much each row counts in the loss, in the start, the scale, `history_` and `usage_`. A row of weight 0 is
            as if it were not there. One of weight w counts as w copies would, but is drawn once in an epoch.

        Returns
        -------
        HopfieldPrototypeClassifier
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault. The estimator is then as it was.

        See Also
        --------
        partial_fit : Train for one more epoch, also on other rows.
        prototype_weights : See which prototypes answer.

        Examples
        --------
        >>> X, y = [[0.0], [0.2], [1.0], [1.2], [3.0], [3.2]], ["a", "a", "b", "b", "a", "a"]
        >>> model = HopfieldPrototypeClassifier(3, epochs=5, random_state=0).fit(X, y)
        >>> sorted(zip(model.prototypes_[:, 0].round(1).tolist(), model.prototype_classes_.tolist()))
        [(0.1, 'a'), (1.1, 'b'), (3.1, 'a')]
        """
        rows, index, weight, classes = self._examples(X, y, sample_weight, None, reset=True)
        rows = self._start(rows, index, weight, classes)
        network, optimizers = self._training()
        decays = [ExponentialDecay(optimizer, self.learning_rate_decay) for optimizer in optimizers]
        with self._progress_bar() as bar:
            for epoch in range(1, self.epochs + 1):
                self._train_epoch(network, optimizers, rows, index, weight, epoch)
                for decay in decays:
                    decay.step()
                if bar is not None:
                    bar.set_postfix({n: f"{v[-1]:.3f}" for n, v in self.history_.items()}, refresh=False)
                    bar.update()
        return self._finish(network, optimizers, rows, weight)

    @restores
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch on these rows.

        Parameters
        ----------
        X : array_like of shape (n, d)
            One row a sample. Centre, scale and the prototypes' start are those of the rows of the first call.
        y : array_like of shape (n,)
            The class of each row, one of `classes`. A class that has no rows in the first call gets no prototypes of
            its own: others come to stand for it, too, as its rows come. So the first rows should be of all classes.
        classes : array_like of shape (n_classes,)
            All classes that will ever come. Needed in the first call, unless `fit` came before; later it may be left
            out.
        sample_weight : array_like of shape (n,), at least 0, optional
            How much each row counts, as in `fit`.

        Returns
        -------
        HopfieldPrototypeClassifier
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault. The estimator is then as it was.

        See Also
        --------
        fit : Train anew, for all epochs.

        Notes
        -----
        After `fit` training goes on, with the same running means of gradients, at `learning_rate` as it is set, which
        does not decay. `n_prototypes`, `beta`, `learn_beta`, `separation`, `structure` and `dtype` stay those of the
        first call.

        Examples
        --------
        >>> X, y = [[0.0], [0.2], [1.0], [1.2], [3.0], [3.2]], ["a", "a", "b", "b", "a", "a"]
        >>> model = HopfieldPrototypeClassifier(3, random_state=0)
        >>> for epoch in range(2):
        ...     model = model.partial_fit(X, y, classes=["a", "b"])
        >>> len(model.history_["loss"]), model.predict([[0.1], [1.1]]).tolist()
        (2, ['a', 'b'])
        """
        begun = hasattr(self, "weights_")
        known = classes_of_all_parts(classes, self.classes_ if begun else None)
        rows, index, weight, known = self._examples(X, y, sample_weight, known, reset=not begun)
        rows = self._scaled(rows) if begun else self._start(rows, index, weight, known)
        network, optimizers = self._training()
        self._train_epoch(network, optimizers, rows, index, weight, len(self.history_["loss"]) + 1)
        return self._finish(network, optimizers, rows, weight)

    def _examples(
        self, X: Any, y: Any, sample_weight: Any, classes: Array | None, *, reset: bool
    ) -> tuple[Array, NDArray[np.int64], NDArray[np.float64] | None, Array]:
        """Return rows, the positions of their classes, their weights and all classes; rows of weight 0 are left out."""
        self._check_parameters()
        rows, _ = validated(self, {"X": X, "y": y}, reset=reset)
        labels = checked_classes("y", y)
        weight = checked_weights(sample_weight, len(rows))
        check_some_weight(weight)
        if weight is not None:
            kept = np.flatnonzero(weight)
            rows, labels = rows[kept], labels[kept]
            alike = weight[kept].min() == weight.max()
            weight = None if alike else np.maximum(weight[kept] / weight[kept].mean(), LEAST)
        classes = np.unique(labels) if classes is None else classes
        return rows, class_positions("y", labels, classes), weight, classes

    @ignoring_float_errors()
    def _start(
        self, rows: Array, index: NDArray[np.int64], weight: NDArray[np.float64] | None, classes: Array
    ) -> Array:
        """Set what training begins with: centre, scale, prototypes; return the rows, scaled."""
        self._random = as_random(self.random_state)
        self.classes_, self.history_ = classes, {"loss": np.empty(0), "accuracy": np.empty(0)}
        self.mean_ = rows.mean(axis=0, dtype=np.float64) if weight is None else weight @ rows / weight.sum()
        squares = np.empty(len(rows))
        for first in range(0, len(rows), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            squares[part] = ((rows[part] - self.mean_) ** 2).mean(axis=1)
        self.scale_ = float(np.sqrt(np.average(squares, weights=weight))) or 1.0
        if not np.isfinite(self.scale_):
            raise ValueError("X: the squares of its numbers exceed the largest float64; scale it down")
        self._options = {name: getattr(self, name) for name in NETWORK}
        scaled = self._scaled(rows)
        counts = np.bincount(index, weight, minlength=len(classes)) if weight is not None else np.bincount(index)
        parts = _shares(np.pad(counts, (0, len(classes) - len(counts))), self.n_prototypes)
        prototypes = [
            self._prototypes_of(scaled[index == k], None if weight is None else weight[index == k], int(part))
            for k, part in enumerate(parts)
            if part
        ]
        logits = CERTAINTY * np.repeat(np.eye(len(classes)), parts, axis=0)
        network = self._make_network()
        network.begin(np.concatenate(prototypes), logits)
        self.weights_, self._optimizer_states = network.state_dict(), None
        return scaled

    def _prototypes_of(self, rows: Array, weight: NDArray[np.float64] | None, count: int) -> Array:
        """Return `count` points of rows of one class to begin with; beside one another where these are too few."""
        if weight is not None:
            weight = np.maximum(weight / weight.max(), LEAST)  # KMeans takes them in float32
        if count == 1 and self.init == "k-means":
            return np.average(rows, axis=0, weights=weight)[None]
        fewer = min(count, len(rows))
        if self.init == "k-means":
            made = KMeans(fewer, n_init=1, max_iter=30, random_state=int(self._random.integers(2**31)))
            with warnings.catch_warnings():  # of rows so near one another that centres coincide
                warnings.simplefilter("ignore", ConvergenceWarning)
                points = made.fit(rows, sample_weight=weight).cluster_centers_
        elif weight is None:
            points = rows[self._random.permutation(len(rows))[:fewer]]
        else:  # one after the other without replacement, each in proportion to its weight (Efraimidis & Spirakis 2006)
            points = rows[np.argsort(self._random.standard_exponential(len(rows)) / weight)[:fewer]]
        points = np.unique(points, axis=0)
        more = points[self._random.integers(len(points), size=count - len(points))]
        return np.concatenate([points, more + APART * self._random.standard_normal(more.shape)])

    def _training(self) -> tuple[PrototypeNetwork, list[AdamW]]:
        """Return the network and its optimisers, as they were left, but at the learning rate that is set.

        Beta has one of its own: to decay its logarithm would draw it to the number of features.
        """
        network = self._fitted()
        parameters = network.parameters()
        scaling = {name: p for name, p in parameters.items() if name.endswith("log_scaling")}
        others = {name: p for name, p in parameters.items() if name not in scaling}
        optimizers = [AdamW(others, self.learning_rate, weight_decay=self.weight_decay)]
        if scaling:
            optimizers.append(AdamW(scaling, self.learning_rate, weight_decay=0.0))
        if self._optimizer_states is not None:
            for optimizer, state in zip(optimizers, self._optimizer_states, strict=True):
                optimizer.load_state_dict(state)
                optimizer.learning_rate = float(self.learning_rate)
        return network, optimizers

    @ignoring_float_errors()
    def _train_epoch(
        self,
        network: PrototypeNetwork,
        optimizers: list[AdamW],
        rows: Array,
        index: NDArray[np.int64],
        weight: NDArray[np.float64] | None,
        epoch: int,
    ) -> None:
        """Train on all rows, which are scaled, once, and add to the history."""
        order = self._random.permutation(len(rows))
        losses, right = np.empty(len(rows)), np.empty(len(rows), np.bool_)
        parameters = network.parameters()
        for first in range(0, len(rows), self.batch_size):
            batch = order[first : first + self.batch_size]
            true = index[batch]
            try:
                logits = network.forward(rows[batch], train=True)
                losses[batch], grad = softmax_loss(logits, true, return_gradient=True)
                if not (np.isfinite(losses[batch]).all() and np.isfinite(grad).all()):
                    raise ValueError("the loss is not finite")
                right[batch] = logits.argmax(axis=1) == true
                network.backward((grad if weight is None else grad * weight[batch, None]) / len(batch))
                if not all(np.isfinite(p.grad).all() for p in parameters.values() if p.grad is not None):
                    raise ValueError("a gradient is not finite")
                if self.max_norm is not None:
                    clip_gradients(parameters, self.max_norm)
                for optimizer in optimizers:
                    optimizer.step()
                network.tie()
            except (ValueError, OverflowError) as error:
                if epoch == 1 and not first:  # nothing has been learned yet
                    raise ValueError(f"beta: with {self.beta} training cannot begin: {error}") from error
                raise ValueError(
                    f"learning_rate, beta: with {self.learning_rate} and {self.beta} training failed in epoch "
                    f"{epoch}: {error}"
                ) from error
            network.zero_grad()
        new = {"loss": np.average(losses, weights=weight), "accuracy": np.average(right, weights=weight)}
        self.history_ = {name: np.append(values, new[name]) for name, values in self.history_.items()}

    @ignoring_float_errors()
    def _finish(
        self, network: PrototypeNetwork, optimizers: list[AdamW], rows: Array, weight: NDArray[np.float64] | None
    ) -> Self:
        """Set what the network is, and what the rows, which are scaled, make of it."""
        if not all(np.isfinite(p.value).all() for p in network.parameters().values()):
            raise ValueError(f"learning_rate: with {self.learning_rate} the network is not finite any more")
        self.weights_ = network.state_dict()
        self._optimizer_states = [optimizer.state_dict() for optimizer in optimizers]
        self.prototypes_ = network.prototypes * self.scale_ + self.mean_
        self.prototype_logits_ = network.logits.copy()
        self.prototype_classes_ = self.classes_[self.prototype_logits_.argmax(axis=1)]
        self.beta_ = float(np.ravel(network.layer.scaling)[0]) * self.n_features_in_
        totals = np.zeros((3, len(self.prototypes_)))
        w = np.ones(len(rows)) if weight is None else weight
        for first in range(0, len(rows), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            made = network.weights(rows[part])
            nearest = np.eye(len(self.prototypes_))[made.argmax(axis=1)]
            totals += np.stack([w[part] @ a for a in (made, made > 0, nearest)])
        self.usage_ = PrototypeUsage(*(totals / w.sum()))
        return self

    # --- predicting ---------------------------------------------------------------------------------

    def _logits(self, X: Any) -> Array:
        """Compute the logits of rows, (N, n_classes)."""
        network, rows = self._fitted(), self._queries(X)
        parts = [network.forward(self._scaled(rows[i : i + AT_ONCE])) for i in range(0, len(rows), AT_ONCE)]
        return np.concatenate(parts)

    def decision_function(self, X: Any) -> Array:
        """Compute the logits of the classes.

        Parameters
        ----------
        X : array_like of shape (N, d)
            One row a sample.

        Returns
        -------
        ndarray of shape (N, n_classes), or (N,) of two classes: how much the second's is above the first's
            The logits of each row.

        See Also
        --------
        predict_proba : Compute probabilities.
        prototype_weights : Compute the weights of the prototypes that the logits come from.

        Examples
        --------
        >>> X, y = [[0.0], [0.2], [1.0], [1.2], [3.0], [3.2]], ["a", "a", "b", "b", "a", "a"]
        >>> model = HopfieldPrototypeClassifier(3, epochs=5, random_state=0).fit(X, y)
        >>> model.decision_function([[0.1], [1.1]]) > 0  # whether the second class, "b", is the likelier
        array([False,  True])
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> Array:
        """Compute the probability of each class.

        Parameters
        ----------
        X : array_like of shape (N, d)
            One row a sample.

        Returns
        -------
        ndarray of shape (N, n_classes)
            One row a sample; columns as in `classes_`.

        See Also
        --------
        decision_function : Compute logits.
        predict : Return the likeliest class.

        Examples
        --------
        >>> X, y = [[0.0], [0.2], [1.0], [1.2], [3.0], [3.2]], ["a", "a", "b", "b", "a", "a"]
        >>> model = HopfieldPrototypeClassifier(3, epochs=5, random_state=0).fit(X, y)
        >>> model.predict_proba([[0.1], [1.1]]).round(1).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        return softmax(self._logits(X))

    def predict(self, X: Any) -> Array:
        """Return the likeliest class.

        Parameters
        ----------
        X : array_like of shape (N, d)
            One row a sample.

        Returns
        -------
        ndarray of shape (N,)
            One class a row.

        See Also
        --------
        predict_proba : Compute probabilities.

        Examples
        --------
        >>> X, y = [[0.0], [0.2], [1.0], [1.2], [3.0], [3.2]], ["a", "a", "b", "b", "a", "a"]
        >>> model = HopfieldPrototypeClassifier(3, epochs=5, random_state=0).fit(X, y)
        >>> model.predict([[0.1], [1.1], [3.1]]).tolist()
        ['a', 'b', 'a']
        """
        best = self._logits(X).argmax(axis=1)
        return cast(Array, self.classes_[best])

    def prototype_weights(self, X: Any) -> Array:
        """Compute the weight of each prototype.

        Parameters
        ----------
        X : array_like of shape (N, d)
            One row a sample.

        Returns
        -------
        ndarray of shape (N, n_prototypes)
            Each row sums to 1. With a sparse map most are exactly 0. `prototype_weights(X) @ prototype_logits_` are the
            logits.

        See Also
        --------
        PrototypeUsage : Their means over the rows of the last fitting.
        decision_function : Compute the logits that they mix.

        Examples
        --------
        >>> X, y = [[0.0], [0.2], [1.0], [1.2], [3.0], [3.2]], ["a", "a", "b", "b", "a", "a"]
        >>> model = HopfieldPrototypeClassifier(3, epochs=5, random_state=0).fit(X, y)
        >>> weights = model.prototype_weights([[0.1], [1.1]])
        >>> model.prototypes_[weights.argmax(axis=1), 0].round(1).tolist(), (weights > 0).sum(axis=1).tolist()
        ([0.1, 1.1], [1, 1])
        """
        network, rows = self._fitted(), self._queries(X)
        parts = [network.weights(self._scaled(rows[i : i + AT_ONCE])) for i in range(0, len(rows), AT_ONCE)]
        return np.concatenate(parts)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.random_state is None
        return tags

    # --- parts --------------------------------------------------------------------------------------

    def _queries(self, X: Any) -> Array:
        """Return rows to predict, checked."""
        check_is_fitted(self)
        return cast(Array, validated(self, {"X": X}, reset=False))

    @ignoring_float_errors()
    def _scaled(self, rows: Array) -> Array:
        """Return rows as the network takes them."""
        out = np.empty(rows.shape, self._options["dtype"])
        for first in range(0, len(rows), AT_ONCE):  # in float64, some at a time
            part = slice(first, first + AT_ONCE)
            out[part] = (rows[part] - self.mean_) / self.scale_
            far = ~np.isfinite((out[part] ** 2).sum(axis=1))
            if far.any():
                raise ValueError(
                    f"X: row {first + far.argmax()} is too far from the centre of the rows of fit for {out.dtype}"
                )
        return out

    def _make_network(self) -> PrototypeNetwork:
        """Make a network with the parameters that this estimator had when it began to be trained."""
        return PrototypeNetwork(self.n_features_in_, len(self.classes_), **self._options)

    def _fitted(self) -> PrototypeNetwork:
        """Return the trained network, made anew for each call so that threads do not share one."""
        check_is_fitted(self)
        network = self._make_network()
        network.load_state_dict(self.weights_)
        return network

    def _progress_bar(self) -> Any:
        """Return a progress bar, or a context without one."""
        if not as_flag("verbose", self.verbose):
            return nullcontext()
        return progress_bar(
            self.epochs, "training", "epochs", purpose="the progress bar of HopfieldPrototypeClassifier"
        )

    def _check_parameters(self) -> None:
        """Check the parameters that the layer does not check."""
        as_choice("dtype", self.dtype, ("float32", "float64"))
        as_choice("init", self.init, STARTS)
        as_flag("learn_beta", self.learn_beta)
        refuse_signed_weights(self.separation)
        if not can_exclude(as_structure(self.structure)):
            raise ValueError(
                "structure: must be None or TopK, as rows have no places among prototypes and their weights are asked "
                f"for, got {short(self.structure)}"
            )
        as_whole("n_prototypes", self.n_prototypes, 1, MOST)
        for name in ("epochs", "batch_size"):
            as_whole(name, getattr(self, name), 1)
        with ignoring_float_errors():
            beta = np.dtype(self.dtype).type(as_number("beta", self.beta, least=0.0))
        if not 0 < beta < np.inf:
            raise ValueError(f"beta: must be positive and finite in {self.dtype}, got {self.beta}")
        for name, least in (("learning_rate", 0.0), ("weight_decay", 0.0)):
            as_number(name, getattr(self, name), least=least)
        if not as_number("learning_rate_decay", self.learning_rate_decay, least=0.0) > 0:
            raise ValueError(f"learning_rate_decay: must be positive, got {self.learning_rate_decay}")
        if self.max_norm is not None:
            as_number("max_norm", self.max_norm, least=0.0)


def _shares(counts: Array, total: int) -> NDArray[np.int64]:
    """Divide a total among classes as their counts are, at least one for each that has rows, while there are enough."""
    if total <= np.count_nonzero(counts):
        chosen = np.argsort(-counts, kind="stable")[:total]
        return np.bincount(chosen, minlength=len(counts))
    quota = total * (counts / counts.sum())
    parts = np.where(counts > 0, np.maximum(np.floor(quota), 1), 0).astype(np.int64)
    while parts.sum() > total:  # as small classes have got one
        parts[np.argmax(np.where(parts > 1, parts - quota, -np.inf))] -= 1
    parts[np.argsort(parts - quota, kind="stable")[: total - parts.sum()]] += 1
    return parts
