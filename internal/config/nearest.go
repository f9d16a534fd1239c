package config

import "strings"

// nearest finds the known name that an unknown one was probably meant to be, or "".
func nearest(t ResourceType, name string) string {
	names := make([]string, 0, len(all))
	for _, d := range all {
		if d.Resource == t && !d.Internal {
			names = append(names, d.Name)
		}
	}
	return Nearest(name, names)
}

// Nearest returns the candidate with the fewest edits to name, or "" when none is close: at most a third
// of the letters may differ. Long names are not compared.
func Nearest(name string, candidates []string) string {
	if len(name) > 128 {
		return ""
	}
	name = strings.ToLower(name)
	best, least := "", len(name)/3+1
	for _, c := range candidates {
		if d := distance(name, strings.ToLower(c), least); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts insertions, deletions, replacements and swaps of neighbours; it stops at limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		low := i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
			low = min(low, row[j])
		}
		if low >= limit {
			return limit
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
