# shellcheck shell=bash
# To be sourced by the benches.

# The median of the numbers on standard input, one on each line.
median() { sort -g | awk -v OFMT=%.10g '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }

# median_of KIND FILE: the median of the lines "KIND NUMBER".
median_of() { awk -v kind="$1" '$1 == kind { print $2 }' "$2" | median; }
