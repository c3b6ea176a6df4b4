"""Whether policy, teacher and divergence speak of the same vocabulary, told before any weights load."""

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from rlrt.config.configuration import checked
from rlrt.errors import UserError
from rlrt.loss.divergences import Divergence
from rlrt.model.load import load_config, load_tokenizer, policy_folder
from rlrt.model.teacher import Teacher

SETTING = "teacher.path"


def require_vocabulary(divergence: Divergence | None, vocabulary: int) -> None:
    """UserError where a divergence keeps more tokens than there are."""
    top_k = None if divergence is None else divergence.top_k
    if top_k is not None and top_k > vocabulary:
        raise UserError(
            f"credit.top_k is {top_k}, it must be null or at most {vocabulary}, the model's vocabulary"
        )


def teacher_folder(teacher: Teacher) -> str:
    """The folder of a separate teacher's configuration and tokenizer; UserError where there is none."""
    at = teacher.commit or teacher.revision
    return checked(policy_folder, str(teacher.path), weights=False, setting=SETTING, revision=at)


def teacher_tokens(
    teacher: Teacher, tokenizer: PreTrainedTokenizerBase, policy: PretrainedConfig
) -> int:
    """The longest sequence that a separate teacher takes; UserError where it cannot read the policy's
    token ids: another tokenizer, or logits of another width.
    """
    path, folder = teacher.path, teacher_folder(teacher)
    own = checked(load_tokenizer, folder, setting=SETTING)
    if own.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"{SETTING} is {path}, whose tokenizer differs from the policy's: the teacher scores the "
            "policy's own token ids, so both must share one vocabulary"
        )
    shape = checked(load_config, folder, setting=SETTING)
    if shape.vocab_size != policy.vocab_size:
        raise UserError(
            f"{SETTING} is {path}, whose output has {shape.vocab_size} entries and the policy's "
            f"{policy.vocab_size}: they must be equal"
        )
    return int(shape.max_position_embeddings)
