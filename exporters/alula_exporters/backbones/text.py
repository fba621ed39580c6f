"""Text backbones: sentence-transformers models from tokens to one vector."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from alula.errors import DataError, UsageError
from alula_exporters.backbones.base import Backbone
from alula_exporters.data import Inputs
from alula_exporters.extras import needs_extra

_LONGEST = 512  # tokens, where neither the model nor its tokenizer says
_ROW_PROMPTS = ("document", "passage", "corpus")  # the names that sentence-transformers looks for, in its order


class TextBackbone(Backbone):
    """Modules of a sentence-transformers model, from tokens to a text's embedding.

    Training uses the prompt of rows.

    Args:
        modules: Its modules, a transformer first.
        token_types: True if the transformer reads token types, which are 0 for a single text.
        tokenizer: JSON of the package ``tokenizers``, with its padding token.
        max_tokens: Most tokens of a text, special ones counted.
        row_prompt: Put before the text of a row.
        query_prompt: Put before the text of a query.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        *,
        token_types: bool,
        tokenizer: str,
        max_tokens: int,
        row_prompt: str = "",
        query_prompt: str = "",
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.token_types = token_types
        self.tokenizer: str = tokenizer
        self.contract = {
            "input": "text",
            "max_tokens": max_tokens,
            "row_prompt": row_prompt,
            "query_prompt": query_prompt,
        }
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.enable_truncation(max_tokens)
        if self._tokenizer.padding is None:
            self._tokenizer.enable_padding()

    def collate(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """See `Backbone.collate`: n strings to token ids and mask, int64 (n, t)."""
        if inputs.ndim != 1 or inputs.dtype != object:
            raise DataError(f"The training rows are {inputs.dtype} {inputs.shape}, and this backbone takes texts.")
        prompt = self.contract["row_prompt"]
        encoded = self._tokenizer.encode_batch([prompt + text for text in inputs])
        ids, mask = ([getattr(text, name) for text in encoded] for name in ("ids", "attention_mask"))
        return torch.tensor(ids, dtype=torch.int64), torch.tensor(mask, dtype=torch.int64)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed texts.

        Args:
            input_ids: int64 (n, t).
            attention_mask: int64 (n, t), 1 for tokens and 0 for padding.

        Returns:
            float32 (n, d).
        """
        features: dict[str, Tensor] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.token_types:
            features["token_type_ids"] = torch.zeros_like(input_ids)
        for part in self.parts:
            features = part(features)
        return features["sentence_embedding"]

    def of_queries(self) -> TextBackbone:
        """The same network, weights shared, behind the prompt of queries."""
        prompt = self.contract["query_prompt"]
        return TextBackbone(
            list(self.parts),
            token_types=self.token_types,
            tokenizer=self.tokenizer,
            max_tokens=self.contract["max_tokens"],
            row_prompt=prompt,
            query_prompt=prompt,
        )

    def _example(self) -> dict[str, Tensor]:
        tokens = min(8, self.contract["max_tokens"] // 2)
        mask = torch.ones((2, tokens), dtype=torch.int64)
        mask[1, tokens // 2 :] = 0
        # any token will do, and a padding token may not
        return {"input_ids": torch.arange(2 * tokens).reshape(2, tokens) + 2, "attention_mask": mask}


def load_text_backbone(folder: Path) -> TextBackbone:
    """Open a dense sentence-transformers model.

    Args:
        folder: The folder that ``SentenceTransformer.save_pretrained`` wrote.

    Raises:
        UsageError: If the folder holds something else, or a model that cannot be part of an encoder file.
        AlulaError: If the package sentence-transformers is missing.
    """
    model = open_checkpoint(folder, "SentenceTransformer")
    return text_backbone(model, list(model.children()))


def open_checkpoint(folder: Path, kind: str) -> Any:
    """Open a saved sentence-transformers model, offline.

    Runs no code from the folder.

    Args:
        folder: The model's folder.
        kind: ``SentenceTransformer`` or ``SparseEncoder``.

    Returns:
        The model of that class, in float32, on the CPU.

    Raises:
        UsageError: If the folder holds something else, or the model is not one transformer for queries and rows alike.
        AlulaError: If the package sentence-transformers is missing.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}; give the folder that sentence-transformers saved a model in.")
    if not (folder / "modules.json").is_file():
        raise UsageError(
            f"{folder} does not hold a sentence-transformers model (it has no modules.json); load it with "
            "sentence-transformers and save it with save_pretrained()."
        )
    found = _saved_kind(folder)
    if found != kind:
        raise UsageError(f"{folder} holds a model of the class {found}, and a {kind} is needed here.")
    with needs_extra("A sentence-transformers model", "sentence-transformers"):
        import sentence_transformers  # noqa: PLC0415 (seconds)
        from transformers.utils import logging  # noqa: PLC0415
    logging.disable_progress_bar()
    try:
        model = getattr(sentence_transformers, kind)(str(folder), device="cpu", local_files_only=True)
    except Exception as error:  # whatever two large packages and the folder's files may run into
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UsageError(f"sentence-transformers cannot open the model in {folder}: {reason}") from None
    return model.float().eval()


def check_modules(modules: Sequence[nn.Module]) -> None:
    """Raise a `UsageError` for modules that cannot be a backbone of text."""
    from sentence_transformers.base.modules import Router, Transformer  # noqa: PLC0415 (seconds)

    if isinstance(modules[0], Router):
        raise UsageError(
            "The model has one way for queries and another for rows (a Router); of such models only sparse ones whose "
            "queries are a table of token weights (SparseStaticEmbedding) can be exported."
        )
    if not isinstance(modules[0], Transformer):
        raise UsageError(f"The model begins with {type(modules[0]).__name__}, and only a Transformer can be exported.")
    if any(getattr(module, "include_prompt", True) is False for module in modules):
        raise UsageError("The model leaves its prompt out of the pooling, which an encoder file cannot do.")


def _saved_kind(folder: Path) -> str:
    path = folder / "config_sentence_transformers.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return str(config.get("model_type", "SentenceTransformer"))  # older models do not say
    except (ValueError, AttributeError):
        raise UsageError(f"{path} is not a JSON object; save the model again.") from None


def text_backbone(model: Any, modules: Sequence[nn.Module]) -> TextBackbone:
    """The first modules of a sentence-transformers model as a backbone.

    Args:
        model: A ``SentenceTransformer`` or ``SparseEncoder``.
        modules: The modules from tokens to the vectors, a ``Transformer`` first.

    Raises:
        UsageError: If its tokenizer cannot be put into a file.
    """
    check_modules(modules)
    transformer: Any = modules[0]
    prompts = model.prompts
    default = prompts.get(model.default_prompt_name, "")
    return TextBackbone(
        modules,
        token_types="token_type_ids" in transformer.tokenizer.model_input_names,
        tokenizer=tokenizer_json(transformer.tokenizer),
        max_tokens=_max_tokens(transformer),
        row_prompt=next((prompts[name] for name in _ROW_PROMPTS if name in prompts), default),
        query_prompt=prompts.get("query", default),
    )


def tokenizer_json(tokenizer: Any) -> str:
    """The tokenizer's JSON with its padding token, which can affect positions.

    Args:
        tokenizer: A tokenizer of the package ``transformers``.

    Raises:
        UsageError: If it is not one of the package ``tokenizers``.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise UsageError(
            f"The model's tokenizer ({type(tokenizer).__name__}) has no tokenizer.json, so that it cannot be put into "
            "a file; save the model with a fast tokenizer."
        )
    copy = type(fast).from_str(fast.to_str())
    copy.no_truncation()
    if tokenizer.pad_token is not None:
        copy.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    text: str = copy.to_str()
    return text


def _max_tokens(transformer: Any) -> int:
    config: Mapping[str, Any] = transformer.config.to_dict()
    # a tokenizer without a limit says 10^30
    limits = (transformer.max_seq_length, transformer.tokenizer.model_max_length, config.get("max_position_embeddings"))
    return int(min((limit for limit in limits if limit and limit < 2**20), default=_LONGEST))
