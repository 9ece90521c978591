"""What a step inside a trust region needs: the curvature of the KL, and conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from textgym_agents.models.token_scores import Head, log_probabilities
from textgym_agents.policies import LMPolicy
from textgym_agents.rollouts.buffers import Sequences


class RolloutPart:
    """Some episodes of a rollout under the policy as it was when this was made, and under the policy as it is now.

    Attributes:
        size: Tokens that the policy chose, ``N``.
        returns: ``[N]``, targets of the values.
    """

    def __init__(self, policy: LMPolicy, old_head: Head, sequences: Sequences, temperature: float) -> None:
        """Args: policy: Is asked later too. old_head: A copy of its head. sequences: On its device, with advantages."""
        self._policy, self._sequences, mask = policy, sequences, sequences.action_mask
        self._temperature, self._support = temperature, sequences.support()
        self.size, self.returns = sequences.num_tokens, sequences.returns[mask]
        self._tokens = sequences.input_ids[:, -mask.shape[1] :][mask]
        self._advantages, self._old = sequences.advantages[mask], sequences.log_probs[mask]
        self._old_head = old_head
        with torch.no_grad():
            self._old_hidden = self.hidden()

    def hidden(self) -> Tensor:
        """``[N, H]``, the states in which the policy chose."""
        s = self._sequences
        width = s.action_mask.shape[1]
        backbone = self._policy.backbone
        return backbone.hidden_states(s.input_ids, s.attention_mask, s.action_mask, width)[s.action_mask]

    def value_error(self) -> Tensor:
        """Mean over tokens of the squared error of the values, as they are now."""
        values = self._policy.evaluate_values(self._sequences)[self._sequences.action_mask]
        return torch.nn.functional.mse_loss(values, self.returns)

    def _log_probs(self, hidden: Tensor, head: Head) -> Tensor:
        return log_probabilities(head.logits(hidden), self._support, self._temperature)  # [N, V]

    def objective(self) -> Tensor:
        """Mean over tokens of the ratio times the advantage."""
        return self._objective(self._new_log_probs())

    def kl(self) -> Tensor:
        """Mean over tokens of ``KL(pi_old || pi)``, over all tokens that could be drawn."""
        return self._kl(self._new_log_probs())

    def both(self) -> Tensor:
        """``[2]``: :meth:`objective` and :meth:`kl`, for one reading of the episodes."""
        log_probs = self._new_log_probs()
        return torch.stack([self._objective(log_probs), self._kl(log_probs)])

    def _new_log_probs(self) -> Tensor:
        return self._log_probs(self.hidden(), self._policy.backbone.head.converted())

    def _objective(self, log_probs: Tensor) -> Tensor:
        ratio = (log_probs.gather(-1, self._tokens[:, None]).squeeze(-1) - self._old).exp()
        return (ratio * self._advantages).mean()

    def _kl(self, new: Tensor) -> Tensor:
        with torch.no_grad():
            old = self._log_probs(self._old_hidden, self._old_head)
        # where both are minus infinity their difference is to be 0
        return (old.exp() * (old.clamp(min=-1e30) - new.clamp(min=-1e30))).sum(-1).mean()

    def slope(self, weights: Sequence[Tensor]) -> Tensor:
        """The gradient of the KL, which can be differentiated again."""
        with sdpa_kernel(SDPBackend.MATH):  # the other kernels have no second derivatives
            return flat_grad(self.kl(), weights, create_graph=True)


def flat_grad(
    value: Tensor, weights: Sequence[Tensor], create_graph: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """The gradient of a scalar, all weights in one vector; see ``torch.autograd.grad``."""
    grads = torch.autograd.grad(
        value, weights, retain_graph=retain_graph, create_graph=create_graph, materialize_grads=True
    )
    return torch.cat([grad.reshape(-1) for grad in grads])


def mean_over(of: Callable[[RolloutPart], Tensor], parts: Sequence[RolloutPart]) -> Tensor:
    """Mean over all tokens of what is a mean over each part's."""
    size = sum(part.size for part in parts)
    return torch.stack([of(part) * (part.size / size) for part in parts]).sum(0)


def fisher_products(parts: Sequence[RolloutPart], weights: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """A function from ``v`` to ``F v``, the second derivative of the mean KL times ``v`` (Pearlmutter 1994).

    The weights must not move while it is used. The first derivative of a single part is made once and kept; of several parts,
    which together may be too large, it is made for every product.
    """
    kept = [parts[0].slope(weights)] if len(parts) == 1 else None

    def product(vector: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # also for what is computed again
            if kept is not None:
                return flat_grad(kept[0] @ vector, weights, retain_graph=True)
            return mean_over(lambda part: flat_grad(part.slope(weights) @ vector, weights), parts)

    return product


def conjugate_gradient(product: Callable[[Tensor], Tensor], b: Tensor, steps: int, tolerance: float = 1e-10) -> Tensor:
    """Solves ``A x = b`` for a symmetric positive definite ``A`` (Hestenes and Stiefel 1952).

    Args:
        product: ``A v`` for ``v`` ``[n]``.
        b: ``[n]``.
        steps: Most steps; ``n`` of them would be exact.
        tolerance: Stops once the squared norm of ``b - A x`` is below.

    Returns:
        ``x`` ``[n]``.
    """
    x, residual = torch.zeros_like(b), b.clone()
    direction, size = residual.clone(), residual @ residual
    for _ in range(steps):
        if float(size) < tolerance:
            break
        image = product(direction)
        length = size / (direction @ image)
        x += length * direction
        residual -= length * image
        smaller = residual @ residual
        direction = residual + (smaller / size) * direction
        size = smaller
    return x
