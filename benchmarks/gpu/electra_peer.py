"""ELECTRA's two networks by transformers in one module: a peer that needs torch and transformers only."""

import torch


class Electra(torch.nn.Module):
    """Generator and discriminator as the paper has them, embeddings shared; its loss is that of both.

    Args:
        attention: Implementation, as transformers calls it.
        sizes: What differs from ELECTRA-Small in both configurations.
    """

    def __init__(self, attention: str, **sizes: float):
        import transformers

        super().__init__()
        both = {"vocab_size": 30522, "embedding_size": 128, "num_hidden_layers": 12, **sizes}
        large = transformers.ElectraConfig(hidden_size=256, num_attention_heads=4, intermediate_size=1024, **both)
        small = transformers.ElectraConfig(hidden_size=64, num_attention_heads=1, intermediate_size=256, **both)
        large._attn_implementation = small._attn_implementation = attention
        self.generator = transformers.ElectraForMaskedLM(small)
        self.discriminator = transformers.ElectraForPreTraining(large)
        self.generator.electra.embeddings = self.discriminator.electra.embeddings
        self.generator.generator_lm_head.weight = self.discriminator.electra.embeddings.word_embeddings.weight

    def forward(
        self, input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Loss of masked tokens, and 50 times that of detection."""
        masked = labels != -100
        found = self.generator(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        with torch.no_grad():
            logits = found.logits[masked].float()
            drawn = torch.distributions.Categorical(logits=logits).sample()
        original = torch.where(masked, labels, input_ids)
        corrupted = original.clone()
        corrupted[masked] = drawn
        replaced = (corrupted != original).float()
        detected = self.discriminator(input_ids=corrupted, attention_mask=attention_mask, labels=replaced.long())
        return found.loss + 50 * detected.loss
