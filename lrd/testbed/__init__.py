"""A small world that behaves like the large one: student, teacher and PRM trained from scratch (`lrd testbed NAME`).

What it leaves are ordinary Hugging Face checkpoints under `models/<name>/`; everything downstream loads them as it
loads any model of the Hub. A recipe with `trainings` makes one such world a seed, under `models/<name>/<seed>/`. The
same recipe gives the same weights, bit for bit, on one kind of processor or graphics card.
"""
