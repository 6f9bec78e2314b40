"""Texts as the messages of a chat template that was made for them, as sentence-transformers puts them from version 5.4 on: a prompt is
the system's message, a text the user's; of a pair each text has a role of its own, "query" and "document"."""

from models.config.sentence_files import ChatForm
from models.errors import TemplateError
from models.text.tokenizer import Tokenizer


def rendered(tokenizer: Tokenizer, form: ChatForm, **texts: str) -> str:
    """The chat template over one message for each text, whose name is its role, in their order; to be encoded without special tokens.
    Texts are protected by the caller; an empty `system` is left out.

    Raises:
        TemplateError: the template failed, or leaves out a text.
    """
    given = {role: text for role, text in texts.items() if text or role != "system"}
    messages = [{"role": role, "content": _content(text, form)} for role, text in given.items()]
    variables = {"add_generation_prompt": False, **form.variables}
    found = tokenizer.render_chat(messages, **variables)  # type: ignore[arg-type]  # they are the template's own
    for role, text in given.items():
        if text.strip() not in found:
            raise TemplateError(
                f"the chat template leaves out the {role}'s text, though sentence_bert_config.json says that texts go through it; "
                "give the checkpoint with the template that it was trained with"
            )
    return found


def _content(text: str, form: ChatForm) -> str | list[dict[str, str]]:
    return [{"type": "text", "text": text}] if form.has_parts else text
