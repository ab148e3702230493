"""Learning from bags: multiple instance classification by a Hopfield layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_is_fitted

from sparsehopfield._engine import dense
from sparsehopfield._engine.call import Separation
from sparsehopfield._engine.checks import Array, as_array, as_flag, as_number, as_whole, ignoring_float_errors
from sparsehopfield._engine.progress import progress_bar
from sparsehopfield._engine.separations import as_choice
from sparsehopfield._engine.structure import Structure
from sparsehopfield._engine.text import short
from sparsehopfield.estimators._bags import Bags, as_bags, bags_of_one, is_one_table
from sparsehopfield.estimators._base import as_random, check_some_weight, checked_weights, restores, validated
from sparsehopfield.estimators._classes import checked_classes
from sparsehopfield.estimators._network import Network
from sparsehopfield.optim import AdamW, Annealing, CosineDecay, ExponentialDecay, clip_gradients

CRITERIA = ("auc", "accuracy", "loss")
TINY = float(np.finfo(np.float64).tiny)
#: The parameters that are those of the network.
NETWORK = """layer separation structure embedding hidden_size num_heads output_size quantity beta update_steps_max
normalize dropout head_dropout activation initial_std dtype""".split()
AT_ONCE = 512  # bags in one forward pass that has no backward pass
SQUARES_AT_ONCE = 16  # the same where the weights of all pairs of instances come back


class HopfieldMILClassifier(ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, BaseEstimator):
    """Classifier of bags in two classes, trained on labels of whole bags; it shows which instances mattered.

    The network: standardised instances -> `embedding` -> Hopfield layer over each bag -> `activation` -> one vector a
    bag -> dropout -> linear -> logit; trained by AdamW on binary cross-entropy.

    Parameters
    ----------
    separation : {"sparsemax", "softmax", "entmax15"}, Entmax or Normmax
        How scores become weights: softmax gives every instance some, sparse maps give most none.
    layer : {"pooling", "hopfield", "attention"}
        The layer over a bag. "pooling": `quantity` learned queries, whose results are flattened. "hopfield": every
        instance is a query to its own bag, and the results are averaged, so that neither the order of instances nor
        their number matters. "attention": the same as plain multi-head attention does it, with one association
        and without layer norms, whatever `update_steps_max` and `normalize` are; Vaswani et al. have
        separation="softmax".
    embedding : sequence of int
        Sizes of the linear layers, each with a ReLU, that an instance passes first.
    hidden_size : int, at least 1
        Dimensions of a head, in which queries and instances are compared.
    num_heads : int, at least 1
        How many heads the association has.
    output_size : int, at least 1, optional
        Features of each result; by default those of an instance after the embedding.
    quantity : int, at least 1
        How many learned queries "pooling" has.
    beta : float, positive, optional
        The inverse temperature of the association; by default 1 / sqrt(hidden_size).
    update_steps_max : int or None
        How many updates of the queries come before the last association; negative or None: until every query rests.
    normalize : bool
        Layer norms before the projections. They send an instance whose features are all the same to the origin, where
        nothing distinguishes it: for few or binary features do without.
    dropout : float from 0 to below 1
        The probability with which training sets a weight of the association to 0.
    head_dropout : float from 0 to below 1
        The probability with which training sets an input of the last linear layer to 0.
    activation : {"gelu", "relu", None}
        What the layer's results pass through; None: nothing.
    standardize : bool
        Bring each feature to mean 0 and standard deviation 1, measured on all instances of the bags trained on.
    signed : bool
        Instead, bring features from 0 to 1 (bits) to -1 to 1. Needs standardize=False.
    epochs : int, at least 1
        Passes over the training data.
    batch_size : int, at least 1
        How many bags each step of the optimiser takes.
    learning_rate : float, at least 0
        Step size of the optimiser, AdamW, in the first epoch.
    learning_rate_decay : float, positive, or "cosine"
        The learning rate's factor from epoch to epoch; or the rate falls to 0 over all `epochs`, as
        `sparsehopfield.optim.CosineDecay` does it.
    weight_decay : float, at least 0
        The share of each weight, times the learning rate, that each step takes away.
    max_norm : float, at least 0, optional
        The gradient of a step is scaled down where its norm exceeds this; None leaves it as it is.
    anneal : None, ("beta", start, stop, share) or ("alpha", start, stop, share)
        Goes from start to stop over this share of the epochs, and stays there: beta geometrically, alpha of entmax
        linearly (1 is softmax, 2 sparsemax). It overrides `beta` or `separation`. A sparse association passes no
        gradient where its support is one instance or copies of one; beginning flat avoids that.
    validation_fraction : float from 0 to below 1
        Share of the bags, stratified, that is not trained on: all choices are made on it.
    early_stopping : {None, "auc", "accuracy", "loss"}
        Keep the weights of the best epoch by this measure on the inner split (of equals the one with the least loss),
        from the end of annealing on. None keeps the last.
    patience : int, at least 1, optional
        With early stopping: end when so many epochs in a row were no better. None trains all.
    restarts : int, at least 1
        Train at most so many networks, and keep the best on the inner split, by `early_stopping`'s measure or else the
        loss. One whose accuracy or AUC there is 1 is the last.
    initial_std : float, at least 0
        Standard deviation of the layer's initial weights, which are normal with mean 0.
    random_state : int, RandomState or None
        Draws initial weights, the order of bags, dropout and the inner split; an int makes `fit` repeatable.
    verbose : int
        Above 0: a progress bar (tqdm) with loss and AUC.
    dtype : {"float32", "float64"}
        What the network computes in.
    structure : Structure, optional
        The instances that a query of the layer attends to (`sparsehopfield.structures`), as `TopK(k)`; all by default.
        A k beyond a bag means all of the bag.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        The second is the positive one.
    n_features_in_ : int
        The number of features of an instance.
    history_ : dict of str to ndarray of shape (epochs trained,)
        "loss", "accuracy", "auc" of the training bags, as met in training (with dropout, before each step);
        "inner_loss", ... of the inner split; "validation_loss", ... of the `validation` bags of `fit`.
    best_epoch_ : int
        The epoch that the weights are from, counted from 1.
    starts_ : list of (int, dict)
        `best_epoch_` and `history_` of every network that was trained, in order: one, or up to `restarts`.
    weights_ : dict of str to ndarray
        The network.
    mean_, scale_ : ndarray of shape (n_features_in_,)
        What is subtracted from the features, and what they are divided by then.

    See Also
    --------
    sparsehopfield.layers.HopfieldPooling : The layer over a bag, to build a network of one's own.
    sparsehopfield.torch.HopfieldPooling : The same layer in PyTorch.
    HopfieldPrototypeClassifier : Classify rows in place of bags.

    Notes
    -----
    Bags of different sizes lie end to end in one array, without padding; only the queries of "hopfield" and "attention"
    are padded to the largest bag of a step. Bags of one size are fastest as one array of shape (bags, instances,
    features). Sparse bags stay sparse until the first linear layer, whose backward pass skips instances that no
    gradient reaches: with a sparse map, all that have no weight.

    References
    ----------
    Ramsauer et al. 2021, "Hopfield networks is all you need"; Hu et al. 2023, "On sparse modern Hopfield model",
    sections 2.3 and 4.2; Vaswani et al. 2017, "Attention is all you need".

    Examples
    --------
    Bags of 3 to 5 instances; in the positive ones the first is far from the others.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> bags = [rng.uniform(-1, 1, (rng.integers(3, 6), 2)) for _ in range(20)]
    >>> y = np.arange(20) % 2
    >>> for bag in bags[1::2]:
    ...     bag[0] += 3
    >>> model = HopfieldMILClassifier(epochs=15, learning_rate=0.03, normalize=False, random_state=0).fit(bags, y)
    >>> model.score(bags, y)
    1.0
    >>> int(model.bag_weights(bags[1:2])[0].argmax())
    0
    """

    def __init__(
        self,
        separation: Separation = "sparsemax",
        layer: str = "pooling",
        embedding: Sequence[int] = (),
        hidden_size: int = 8,
        num_heads: int = 8,
        output_size: int | None = None,
        quantity: int = 1,
        beta: float | None = None,
        update_steps_max: int = 0,
        normalize: bool = True,
        dropout: float = 0.0,
        head_dropout: float = 0.0,
        activation: str | None = "gelu",
        standardize: bool = True,
        signed: bool = False,
        epochs: int = 50,
        batch_size: int = 8,
        learning_rate: float = 1e-3,
        learning_rate_decay: float | Literal["cosine"] = 1.0,
        weight_decay: float = 1e-4,
        max_norm: float | None = 1.0,
        anneal: tuple[str, float, float, float] | None = None,
        validation_fraction: float = 0.0,
        early_stopping: str | None = None,
        patience: int | None = None,
        restarts: int = 1,
        initial_std: float = 0.02,
        random_state: Any = None,
        verbose: int = 0,
        dtype: str = "float32",
        structure: Structure | None = None,
    ) -> None:
        self.separation = separation
        self.layer = layer
        self.embedding = embedding
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.output_size = output_size
        self.quantity = quantity
        self.beta = beta
        self.update_steps_max = update_steps_max
        self.normalize = normalize
        self.dropout = dropout
        self.head_dropout = head_dropout
        self.activation = activation
        self.standardize = standardize
        self.signed = signed
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_decay = learning_rate_decay
        self.weight_decay = weight_decay
        self.max_norm = max_norm
        self.anneal = anneal
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.patience = patience
        self.restarts = restarts
        self.initial_std = initial_std
        self.random_state = random_state
        self.verbose = verbose
        self.dtype = dtype
        self.structure = structure

    # --- fitting ------------------------------------------------------------------------------------

    @restores
    def fit(self, bags: Any, y: Any, bag_ids: Any = None, validation: Any = None, sample_weight: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        bags : list of array_like of shape (M_i, e), array_like of shape (B, M, e), or of shape (R, e)
            Data frames of numbers, too. Missing values and masked entries are refused. In an array of shape (R, e) the
            bag of each row is told by `bag_ids`; without these each row is a bag of one instance. The arrays of a list,
            and one with `bag_ids`, may be sparse ones of SciPy, as of counts; this needs an `embedding`, and neither
            `standardize` nor `signed`, under which zeros would not stay zeros.
        y : array_like of shape (B,)
            One label a bag, of two classes; with `bag_ids` in the order of `numpy.unique(bag_ids)`.
        bag_ids : array_like of shape (R,), optional
            The bag of each instance, where `bags` has all instances in one array: numbers, text or dates, of which
            none is missing. In cross-validation give a list instead,
            `[X[bag_ids == i] for i in numpy.unique(bag_ids)]`: only that is split between bags.
        validation : (bags, y), optional
            Evaluated after every epoch for `history_`, and for nothing else; its bags may be a tuple (X, bag_ids).
        sample_weight : array_like of shape (B,), at least 0, optional
            How much each bag counts in the loss, in the scale of the features, and in what `history_` tells of the
            training bags and the inner split. A bag of weight 0 is as if it were not there. One of weight w counts as w
            copies would, but is drawn once in an epoch: the same network comes out where a step takes all bags.

        Returns
        -------
        HopfieldMILClassifier
            This estimator.

        Raises
        ------
        ValueError, TypeError
            Naming the argument at fault: no bags, an empty bag, other widths, NaN, ids that do not fit, one class.
            The estimator is then as it was.

        See Also
        --------
        predict : Classify bags.
        bag_weights : See which instances mattered.

        Examples
        --------
        The bags in one array, with an id for each instance; the positive bags have a 3.

        >>> X, bag_ids = [[0.0], [1.0], [0.0], [3.0]] * 4, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
        >>> model = HopfieldMILClassifier(num_heads=1, normalize=False, epochs=20, learning_rate=0.1, random_state=0)
        >>> model = model.fit(X, ["without", "with"] * 4, bag_ids)
        >>> model.predict([[[0.0], [1.0], [3.0]], [[1.0], [0.0]]]).tolist()
        ['with', 'without']
        """
        self._check_parameters()
        training = self._as_bags(bags, bag_ids, reset=True)
        if y is None:
            raise ValueError("y: requires y to be passed, but the target y is None")
        y = checked_classes("y", y)
        weight = checked_weights(sample_weight, len(training))
        if weight is not None and len(y) == len(training):
            check_some_weight(weight)
            kept = np.flatnonzero(weight)
            training, y, weight = training.take(kept), y[kept], weight[kept] / weight[kept].mean()
        classes = np.unique(y)
        if len(classes) != 2:
            count = "1 class" if len(classes) == 1 else f"{len(classes)} classes"
            raise ValueError(
                f"y: needs two classes, got {count}: {classes[:10].tolist()}. Only binary classification is supported."
            )
        self.classes_ = classes
        examples = _Examples(training, _as_zeros_and_ones("y", y, training, classes), weight)
        random = as_random(self.random_state)
        monitored: dict[str, _Examples] = {}
        if self.validation_fraction > 0:
            train, inner = self._split(examples.labels, int(random.integers(2**31)))
            examples, monitored["inner_"] = examples.take(train), examples.take(inner)
        self._fit_scale(examples)
        if validation is not None:
            if not isinstance(validation, (tuple, list)) or len(validation) != 2:
                raise TypeError(f"validation: must be (bags, y), got {type(validation).__name__}")
            validation_bags = self._as_bags(validation[0], None)
            y = checked_classes("validation", validation[1])
            labels = _as_zeros_and_ones("validation", y, validation_bags, classes)
            monitored["validation_"] = _Examples(validation_bags, labels, None)
        examples, *others = (e._replace(bags=self._scaled(e.bags)) for e in (examples, *monitored.values()))
        monitored = dict(zip(monitored, others, strict=True))
        best, starts = None, []
        for i in range(self.restarts):
            (generator,) = random.spawn(1)
            title = f"restart {i + 1} of {self.restarts}, " if i else ""
            run = self._train(examples, monitored, generator, title)
            starts.append((run.epoch, run.history))
            if best is None or run.merit > best.merit:  # the first of equals
                best = run
            if best.merit[0] == 1:  # every inner bag is right: nothing is left to choose by
                break
        assert best is not None
        self.weights_, self.history_, self.best_epoch_, self.starts_ = best.weights, best.history, best.epoch, starts
        self._parameters = self.get_params(deep=False)
        return self

    def _split(self, labels: Array, seed: int) -> tuple[Array, Array]:
        """Split the bags into those to train on and the inner split, by which all choices are made: their positions."""
        try:
            train, inner = train_test_split(
                np.arange(len(labels)), test_size=float(self.validation_fraction), stratify=labels, random_state=seed
            )
        except ValueError as error:
            raise ValueError(
                f"validation_fraction: {self.validation_fraction} leaves too few of {len(labels)} bags: {error}"
            ) from None
        return np.sort(train), np.sort(inner)

    @ignoring_float_errors()
    def _train(self, examples: _Examples, monitored: dict[str, _Examples], random: Any, title: str) -> _TrainingRun:
        """Train one network; evaluate it on the monitored examples after every epoch."""
        network = self._make_network(random)
        optimizer = AdamW(network, self.learning_rate, weight_decay=self.weight_decay)
        schedules: list[Any] = [self._decay(optimizer), *self._annealing(network)]
        history: dict[str, list[float]] = {}
        best = None
        with self._progress_bar(title) as bar:
            for epoch in range(1, self.epochs + 1):
                try:
                    order = random.permutation(len(examples.bags))
                    logits = self._train_epoch(network, optimizer, examples, order)
                except (ValueError, OverflowError) as error:
                    if epoch == 1 and all(np.isfinite(p.value**2).all() for p in network.parameters().values()):
                        raise
                    raise ValueError(  # it has worked before, so numbers have grown beyond all bounds
                        f"learning_rate: with {self.learning_rate} training failed in epoch {epoch}: {error}"
                    ) from error
                _record(history, "", examples, logits)
                for name, others in monitored.items():
                    _record(history, name, others, _logits(network, others.bags))
                for schedule in schedules:
                    schedule.step()
                if bar is not None:
                    auc = history["inner_auc" if "inner_auc" in history else "auc"][-1]
                    bar.set_postfix(loss=f"{history['loss'][-1]:.3f}", auc=f"{auc:.3f}", refresh=False)
                    bar.update()
                merit = _merit(history, self.early_stopping or "loss")
                if self.early_stopping is None:
                    better = epoch == self.epochs
                else:
                    better = epoch >= self._first_eligible and (best is None or merit > best.merit)
                if better:
                    best = _TrainingRun(merit, epoch, network.state_dict(), {})
                elif best is not None and self.patience is not None and epoch - best.epoch >= self.patience:
                    break
        assert best is not None
        return best._replace(history={name: np.array(values) for name, values in history.items()})

    def _train_epoch(self, network: Network, optimizer: AdamW, examples: _Examples, order: Array) -> Array:
        """Train on all bags once; return their logits, each from before the step of its batch."""
        bags, labels, weight = examples
        parameters = network.parameters()
        logits = np.empty(len(bags), self.dtype)
        for first in range(0, len(bags), self.batch_size):
            batch = order[first : first + self.batch_size]
            logits[batch] = out = network.forward(bags.take(batch), train=True)
            grad = expit(out) - labels[batch]
            network.backward((grad if weight is None else grad * weight[batch]) / len(batch))
            if self.max_norm is not None:
                clip_gradients(parameters, self.max_norm)
            optimizer.step()
            optimizer.zero_grad()
        if not np.isfinite(logits).all():
            raise ValueError("bags: their logits are not finite")
        return logits

    def _make_network(self, random: Any) -> Network:
        """Make a network with this estimator's parameters."""
        return Network(self.n_features_in_, **{name: getattr(self, name) for name in NETWORK}, random=random)

    def _fitted(self) -> Network:
        """Return the trained network, made anew for each call so that threads do not share one."""
        network = self._make_network(0)
        network.load_state_dict(self.weights_)
        if self.anneal is not None:
            name, _, stop, _ = self.anneal
            Annealing(network.layer, name, stop, stop, epochs=1)
        return network

    def _prepared(self, bags: Any, bag_ids: Any) -> tuple[Network, Bags]:
        """Return the trained network and bags as it takes them: with the parameters of fit, whatever they are now."""
        check_is_fitted(self)
        as_fitted = copy.copy(self)
        as_fitted.__dict__.update(getattr(self, "_parameters", {}))  # pickles from before have none
        return as_fitted._fitted(), as_fitted._as_scaled_bags(bags, bag_ids)

    def _decay(self, optimizer: AdamW) -> CosineDecay | ExponentialDecay:
        """Return the schedule of the learning rate."""
        if isinstance(self.learning_rate_decay, str):
            return CosineDecay(optimizer, self.epochs)
        return ExponentialDecay(optimizer, self.learning_rate_decay)

    def _annealing(self, network: Network) -> list[Annealing]:
        """Return the schedules of beta or alpha: one, or none."""
        if self.anneal is None:
            return []
        name, start, stop, _ = self.anneal
        epochs = self._first_eligible - 1
        return [Annealing(network.layer, name, start if epochs else stop, stop, max(epochs, 1))]

    @property
    def _first_eligible(self) -> int:
        """Return the first epoch whose weights may be chosen: beta and alpha have their final values from it on."""
        return 1 if self.anneal is None else min(round(self.anneal[3] * self.epochs) + 1, self.epochs)

    # --- predicting ---------------------------------------------------------------------------------

    def decision_function(self, bags: Any, bag_ids: Any = None) -> Array:
        """Compute the logit of the positive class, `classes_[1]`.

        Parameters
        ----------
        bags : list of array_like of shape (M_i, e), or another form that `fit` takes
            The bags.
        bag_ids : array_like of shape (R,), optional
            The bag of each instance, where `bags` has all instances in one array.

        Returns
        -------
        ndarray of shape (B,)
            One logit a bag.

        See Also
        --------
        predict_proba : Compute probabilities.
        predict : Return the likelier class.

        Examples
        --------
        >>> bags, y = [[[0.0], [1.0]], [[0.0], [3.0]]] * 4, [0, 1] * 4
        >>> model = HopfieldMILClassifier(num_heads=1, normalize=False, epochs=20, learning_rate=0.1, random_state=0)
        >>> model.fit(bags, y).decision_function([[[0.0], [1.0], [3.0]], [[1.0], [0.0]]]) > 0
        array([ True, False])
        """
        network, prepared = self._prepared(bags, bag_ids)
        return _logits(network, prepared)

    @ignoring_float_errors()
    def predict_proba(self, bags: Any, bag_ids: Any = None) -> Array:
        """Compute the probability of each class.

        Parameters
        ----------
        bags : list of array_like of shape (M_i, e), or another form that `fit` takes
            The bags.
        bag_ids : array_like of shape (R,), optional
            The bag of each instance, where `bags` has all instances in one array.

        Returns
        -------
        ndarray of shape (B, 2)
            One row a bag; columns as in `classes_`.

        See Also
        --------
        decision_function : Compute logits.
        predict : Return the likelier class.

        Examples
        --------
        >>> bags, y = [[[0.0], [1.0]], [[0.0], [3.0]]] * 4, [0, 1] * 4
        >>> model = HopfieldMILClassifier(num_heads=1, normalize=False, epochs=20, learning_rate=0.1, random_state=0)
        >>> model.fit(bags, y).predict_proba([[[0.0], [1.0], [3.0]], [[1.0], [0.0]]]).round().tolist()
        [[0.0, 1.0], [1.0, 0.0]]
        """
        logits = self.decision_function(bags, bag_ids)
        return np.stack([expit(-logits), expit(logits)], axis=1)

    def predict(self, bags: Any, bag_ids: Any = None) -> Array:
        """Return the likelier class.

        Parameters
        ----------
        bags : list of array_like of shape (M_i, e), or another form that `fit` takes
            The bags.
        bag_ids : array_like of shape (R,), optional
            The bag of each instance, where `bags` has all instances in one array.

        Returns
        -------
        ndarray of shape (B,)
            One class a bag.

        See Also
        --------
        predict_proba : Compute probabilities.
        bag_weights : See which instances mattered.

        Examples
        --------
        >>> bags, y = [[[0.0], [1.0]], [[0.0], [3.0]]] * 4, ["without", "with"] * 4
        >>> model = HopfieldMILClassifier(num_heads=1, normalize=False, epochs=20, learning_rate=0.1, random_state=0)
        >>> model.fit(bags, y).predict([[[0.0], [1.0], [3.0]], [[1.0], [0.0]]]).tolist()
        ['with', 'without']
        """
        positive = self.decision_function(bags, bag_ids) > 0
        return self.classes_[positive.astype(int)]

    @ignoring_float_errors()
    def transform(self, bags: Any, bag_ids: Any = None) -> Array:
        """Compute one vector for each bag: the input of the last linear layer.

        Parameters
        ----------
        bags : list of array_like of shape (M_i, e), or another form that `fit` takes
            The bags.
        bag_ids : array_like of shape (R,), optional
            The bag of each instance, where `bags` has all instances in one array.

        Returns
        -------
        ndarray of shape (B, quantity * output_size) for "pooling", else (B, output_size)
            Or a data frame, as `set_output` says. (One of pandas takes its index from `bags` if these are a data frame,
            which has one row a bag only without `bag_ids`.)

        See Also
        --------
        fit_transform : Train first.
        bag_weights : Compute which instances a vector is made of.

        Examples
        --------
        >>> bags, y = [[[0.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [3.0, 1.0]]] * 4, [0, 1] * 4
        >>> model = HopfieldMILClassifier(quantity=2, num_heads=1, epochs=5, random_state=0).fit(bags, y)
        >>> model.transform(bags).shape  # two learned queries, each with as many features as an instance
        (8, 4)
        """
        network, prepared = self._prepared(bags, bag_ids)
        return np.concatenate([network.pooled(part) for part in prepared.parts(AT_ONCE)])

    def fit_transform(self, bags: Any, y: Any, bag_ids: Any = None, **fit_params: Any) -> Any:
        """Train, and compute one vector for each bag.

        Parameters
        ----------
        bags : list of array_like of shape (M_i, e), or another form that `fit` takes
            The bags.
        y : array_like of shape (B,)
            One label a bag, of two classes.
        bag_ids : array_like of shape (R,), optional
            The bag of each instance, where `bags` has all instances in one array.
        **fit_params
            Other arguments of `fit`, by name.

        Returns
        -------
        ndarray, as `transform` returns
            One row a bag.

        See Also
        --------
        transform : Compute the vectors with a network that is trained.

        Examples
        --------
        >>> bags, y = [[[0.0], [1.0]], [[0.0], [3.0]]] * 4, [0, 1] * 4
        >>> model = HopfieldMILClassifier(output_size=3, num_heads=1, epochs=5, random_state=0)
        >>> model.fit_transform(bags, y).shape
        (8, 3)
        """
        return self.fit(bags, y, bag_ids, **fit_params).transform(bags, bag_ids)

    @property
    def _n_features_out(self) -> int:
        """Return how many numbers `transform` makes of a bag; scikit-learn names them."""
        check_is_fitted(self)
        (last,) = (a for name, a in self.weights_.items() if name.startswith("head.") and name.endswith(".weight"))
        return int(last.shape[1])

    @ignoring_float_errors()
    def bag_weights(self, bags: Any, bag_ids: Any = None, *, per_head: bool = False) -> list[Array]:
        """Compute the weight of each instance of a bag in the last association, averaged over the queries.

        Parameters
        ----------
        bags : list of array_like of shape (M_i, e), or another form that `fit` takes
            The bags.
        bag_ids : array_like of shape (R,), optional
            The bag of each instance, where `bags` has all instances in one array.
        per_head : bool
            True returns the weights of each head, False their mean over the heads.

        Returns
        -------
        list of ndarray of shape (M_i,), or (num_heads, M_i)
            They sum to 1. With a sparse map, instances without weight have exactly 0.

        See Also
        --------
        predict : Classify the bags.

        Examples
        --------
        >>> bags, y = [[[0.0], [1.0]], [[0.0], [3.0]]] * 4, [0, 1] * 4
        >>> model = HopfieldMILClassifier(num_heads=1, normalize=False, epochs=20, learning_rate=0.1, random_state=0)
        >>> model.fit(bags, y).bag_weights([[[0.0], [1.0], [3.0]]])[0].tolist()  # all weight is on the 3
        [0.0, 0.0, 1.0]
        """
        network, prepared = self._prepared(bags, bag_ids)
        weights = [w for part in prepared.parts(SQUARES_AT_ONCE) for w in network.weights(part)]
        return weights if per_head else [w.mean(axis=0) for w in weights]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = [self.dtype]
        tags.classifier_tags.multi_class = False
        tags.non_deterministic = self.random_state is None
        return tags

    # --- checks and scaling -------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        """Check the parameters that the layers do not check; the network's are checked when it is made."""
        for name, value, valid in (
            ("early_stopping", self.early_stopping, CRITERIA),
            ("dtype", self.dtype, ("float32", "float64")),
        ):
            if value is not None:
                as_choice(name, value, valid)
        for name in ("epochs", "batch_size", "restarts"):
            as_whole(name, getattr(self, name), 1)
        if as_array("embedding", self.embedding).ndim != 1:
            raise TypeError(f"embedding: must be a sequence of sizes, got {short(self.embedding)}")
        for size in self.embedding:
            as_whole("embedding", size, 1)
        if self.beta is not None:
            with ignoring_float_errors():
                beta = np.dtype(self.dtype).type(as_number("beta", self.beta, least=0.0))
            if not 0 < beta < np.inf:
                raise ValueError(f"beta: must be positive and finite in {self.dtype}, got {self.beta}")
        if not as_number("head_dropout", self.head_dropout, least=0.0) < 1:
            raise ValueError(f"head_dropout: must be from 0 to below 1, got {self.head_dropout}")
        if self.patience is not None:
            as_whole("patience", self.patience, 1)
        for name in ("learning_rate", "weight_decay"):
            as_number(name, getattr(self, name), least=0.0)
        if isinstance(self.learning_rate_decay, str):
            as_choice("learning_rate_decay", self.learning_rate_decay, ("cosine",))
        else:
            as_number("learning_rate_decay", self.learning_rate_decay, least=TINY)
        if self.max_norm is not None:
            as_number("max_norm", self.max_norm, least=0.0)
        if not as_number("validation_fraction", self.validation_fraction, least=0.0) < 1:
            raise ValueError(f"validation_fraction: must be from 0 to below 1, got {self.validation_fraction}")
        for name, chooses in (("early_stopping", self.early_stopping is not None), ("restarts", self.restarts > 1)):
            if chooses and self.validation_fraction == 0:
                raise ValueError(f"{name}: chooses on an inner split; give a validation_fraction above 0")
        if self.signed and self.standardize:
            raise ValueError("signed: is undone by standardising; pass standardize=False")
        if self.anneal is not None:
            self._check_anneal(self.anneal)

    @staticmethod
    def _check_anneal(anneal: Any) -> None:
        """Check the parameter `anneal`."""
        if not isinstance(anneal, (tuple, list)) or len(anneal) != 4 or anneal[0] not in ("beta", "alpha"):
            raise ValueError(
                f"anneal: must be ('beta' or 'alpha', start, stop, share of the epochs), got {short(anneal)}"
            )
        name, *ends, share = anneal
        for value in ends:
            if not as_number("anneal", value, least=float(name == "alpha")) > 0:
                raise ValueError(f"anneal: beta must be positive, got {value}")
        if as_number("anneal", share, least=0.0) > 1:
            raise ValueError(f"anneal: the share of the epochs must be from 0 to 1, got {share}")

    def _as_scaled_bags(self, bags: Any, bag_ids: Any) -> Bags:
        """Check and scale bags for the network."""
        return self._scaled(self._as_bags(bags, bag_ids))

    def _as_bags(self, bags: Any, bag_ids: Any, *, reset: bool = False) -> Bags:
        """Return bags, checked. reset: their features become those of the estimator, else they must be the same."""
        if bag_ids is None and is_one_table(bags):
            rows = validated(self, {"bags": bags}, reset=reset)
            return bags_of_one(rows, self.dtype)
        made = as_bags(bags, bag_ids, self.dtype)
        if made.is_sparse:
            self._check_takes_sparse()
        if reset:
            self.n_features_in_ = made.width
            self.__dict__.pop("feature_names_in_", None)
        elif made.width != self.n_features_in_:
            raise ValueError(f"bags: must have the {self.n_features_in_} features of those fitted, got {made.width}")
        return made

    def _check_takes_sparse(self) -> None:
        """Raise if the parameters ask of sparse bags what would make them dense."""
        for name, wanted in (("standardize", self.standardize), ("signed", self.signed)):
            if wanted:
                raise ValueError(f"{name}: must be False for sparse bags, whose zeros would not stay zeros")
        if not len(self.embedding):
            raise ValueError("embedding: needs at least one linear layer for sparse bags, got none")

    @ignoring_float_errors()
    def _fit_scale(self, examples: _Examples) -> None:
        """Set `mean_` and `scale_`, by which features are scaled, from these bags."""
        bags, _, weight = examples
        self.mean_, self.scale_ = np.zeros(bags.width), np.ones(bags.width)
        if bags.is_sparse:
            return
        rows = bags.rows.reshape(-1, bags.width)
        if self.standardize:
            self.mean_, self.scale_ = dense.feature_scale(
                rows, None if weight is None else np.repeat(weight, bags.sizes)
            )
        elif self.signed:
            if rows.min() < 0 or rows.max() > 1:
                raise ValueError(f"signed: needs features from 0 to 1, got {rows.min():g} to {rows.max():g}")
            self.mean_, self.scale_ = self.mean_ + 0.5, self.scale_ * 0.5

    @ignoring_float_errors()
    def _scaled(self, bags: Bags) -> Bags:
        """Return the bags with their features scaled."""
        if not (self.standardize or self.signed):
            return bags
        return bags.with_rows(((bags.rows - self.mean_) / self.scale_).astype(self.dtype))

    def _progress_bar(self, title: str) -> Any:
        """Return a progress bar, or a context without one."""
        if not as_flag("verbose", self.verbose):
            return nullcontext()
        purpose = "the progress bar of HopfieldMILClassifier"
        return progress_bar(self.epochs, f"{title}training", "epochs", purpose=purpose)


class _Examples(NamedTuple):
    """Bags, their labels 0 or 1, (B,), and how much each counts, (B,), 1 on average; None: 1."""

    bags: Bags
    labels: Array
    weight: Array | None

    def take(self, positions: Array) -> _Examples:
        """Return the examples at some positions, in their order."""
        weight = None if self.weight is None else self.weight[positions] / self.weight[positions].mean()
        return _Examples(self.bags.take(positions), self.labels[positions], weight)


class _TrainingRun(NamedTuple):
    """The outcome of one training: the best weights, their epoch, their merit (`_merit`), and the history."""

    merit: tuple[float, float]
    epoch: int
    weights: dict[str, Array]
    history: dict[str, Array]


def _as_zeros_and_ones(name: str, y: Array, bags: Bags, classes: Array) -> Array:
    """Return the labels as 0 and 1, the second class 1; raise unless there is one for each bag."""
    if len(y) != len(bags):
        hint = (
            "; without bag_ids each row is a bag of its own" if bags.offsets is None and bags.rows.shape[1] == 1 else ""
        )
        raise ValueError(f"{name}: needs one label for each of {len(bags)} bags, got {len(y)}{hint}")
    index_of = {label: i for i, label in enumerate(classes.tolist())}  # Python compares numbers of any type exactly
    if unknown := set(y.tolist()) - index_of.keys():
        raise ValueError(f"{name}: label {short(unknown.pop())} is not among those fitted, {short(classes.tolist())}")
    return np.array([index_of[label] for label in y.tolist()], np.int64)


@ignoring_float_errors()
def _logits(network: Network, bags: Bags) -> Array:
    """Compute the logits of bags, (B,), AT_ONCE bags at a time."""
    return np.concatenate([network.forward(part) for part in bags.parts(AT_ONCE)])


def _record(history: dict[str, list[float]], prefix: str, examples: _Examples, logits: Array) -> None:
    """Append loss, accuracy and AUC of these bags to the history, under names with this prefix."""
    _, labels, weight = examples
    loss = (np.logaddexp(0, logits) - labels * logits).astype(np.float64)
    values = {
        "loss": float(np.average(loss, weights=weight)),
        "accuracy": float(np.average((logits > 0) == labels, weights=weight)),
        "auc": _auc(labels, logits, weight),
    }
    for name, value in values.items():
        history.setdefault(prefix + name, []).append(value)


def _auc(labels: Array, logits: Array, weight: Array | None = None) -> float:
    """Return the area under the ROC curve; NaN where there is one class only, or a logit that is not finite.

    It is the share of pairs, one of each class, in which the positive bag has the larger logit, equals counting half.
    scikit-learn's `roc_auc_score`, which checks its arguments, took as long as the training of a small network.
    """
    if labels.min() == labels.max() or not np.isfinite(logits).all():
        return float("nan")
    places = np.unique(logits, return_inverse=True)[1]
    counts = [
        np.bincount(places, of_class if weight is None else of_class * weight) for of_class in (labels, 1 - labels)
    ]
    positive, negative = counts
    pairs = positive @ (negative.cumsum() - negative / 2)
    return float(pairs / (positive.sum() * negative.sum()))


def _merit(history: dict[str, list[float]], criterion: str) -> tuple[float, float]:
    """Return how good the last epoch is on the inner split: by the criterion, then the loss; zeros without a split."""
    if "inner_loss" not in history:
        return (0.0, 0.0)
    loss = -history["inner_loss"][-1]
    return (loss if criterion == "loss" else history[f"inner_{criterion}"][-1], loss)
