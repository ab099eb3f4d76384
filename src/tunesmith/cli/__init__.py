"""Floor 7: verbs, help, printing. No tensor arithmetic; ``--help`` and ``list`` import no torch."""
