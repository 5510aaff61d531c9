// Package nearest finds the name somebody meant who wrote another one.
package nearest

// Name gives the known name that needs the fewest letters changed to become
// name, or "" when half of the letters and more would have to.
func Name(name string, known []string) string {
	best, distance := "", len(name)/2+1
	for _, k := range known {
		if d := editDistance(name, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// Hint gives ", did you mean X?" for the end of an error text, or "".
func Hint(name string, known []string) string {
	if best := Name(name, known); best != "" {
		return ", did you mean " + best + "?"
	}
	return ""
}

// editDistance is Levenshtein's, in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
