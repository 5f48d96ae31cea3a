"""How well scores tell pairs of one person from pairs of two: verification metrics.

Everything here takes plain numpy arrays: ``scores``, higher is nearer, and ``same``, whether
the pair truly is one person. A pair counts as a match when its score reaches the threshold.

**A face that was not found.** Its pair has no score: pass NaN (or ``-inf``). Such a pair never
matches, at any threshold. Two conventions follow, both the strict ones:

* *accuracy* counts it as an error whether the pair is same or different, because the system
  gave no answer (dropping such pairs is how inflated figures are made);
* *rates and curves* follow ISO/IEC 19795-1's generalised rates, which include failures to
  acquire: a same pair is missed, a different pair is not falsely matched.
"""
