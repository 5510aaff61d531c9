package fleet

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Limits of labels.
const (
	MaxLabels      = 64   // of one host
	MaxSelector    = 1024 // bytes
	maxLabelLength = 63
)

var labelPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_./-]*[A-Za-z0-9])?$`)

// ParseLabelKey accepts the name of a label: letters, digits, and between them
// '-', '_', '.' and '/', 63 characters at most.
func ParseLabelKey(s string) error {
	if len(s) > maxLabelLength || !labelPattern.MatchString(s) {
		return errors.New("must be letters and digits, between them '-', '_', '.' and '/', 63 characters at most")
	}
	return nil
}

// ParseLabelValue accepts the value of a label: as a key, or empty.
func ParseLabelValue(s string) error {
	if s == "" {
		return nil
	}
	return ParseLabelKey(s)
}

// CheckLabels refuses labels that are not well formed, naming the one to blame.
func CheckLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return InvalidField("labels", "must not be more than %d", MaxLabels)
	}
	for key, value := range labels {
		if err := ParseLabelKey(key); err != nil {
			return InvalidField("labels", "must have other names: a name %s", err)
		}
		if err := ParseLabelValue(value); err != nil {
			return InvalidField("labels."+key, "%s, or be empty", err)
		}
	}
	return nil
}

// Selector chooses hosts by their labels, as in Kubernetes ("Labels and
// Selectors" in its documentation). All of its requirements must hold; one
// without any chooses every host.
type Selector []Requirement

// Requirement is what one label must be.
type Requirement struct {
	Key string
	// In: the label is there with one of Values. Otherwise it must not be; a host
	// without the label fits that, too. Without Values only its being there counts.
	In     bool
	Values []string
}

// Matches says whether a host with these labels is chosen.
func (s Selector) Matches(labels map[string]string) bool {
	for _, r := range s {
		value, there := labels[r.Key]
		if there && len(r.Values) > 0 {
			there = slices.Contains(r.Values, value)
		}
		if there != r.In {
			return false
		}
	}
	return true
}

var setPattern = regexp.MustCompile(`^(\S+)\s+(in|notin)\s*\(([^()]*)\)$`)

// ParseSelector reads requirements between commas: key=value, key==value,
// key!=value, key, !key, key in (a,b), key notin (a,b).
func ParseSelector(text string) (Selector, error) {
	if len(text) > MaxSelector {
		return nil, fmt.Errorf("must not be longer than %d characters", MaxSelector)
	}
	var s Selector
	if strings.TrimSpace(text) == "" {
		return s, nil
	}
	for _, part := range splitRequirements(text) {
		r, err := parseRequirement(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		s = append(s, r)
	}
	return s, nil
}

// splitRequirements splits at commas outside parentheses.
func splitRequirements(text string) (parts []string) {
	depth, from := 0, 0
	for i, c := range text {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			parts = append(parts, text[from:i])
			from = i + 1
		}
	}
	return append(parts, text[from:])
}

func parseRequirement(part string) (r Requirement, err error) {
	if m := setPattern.FindStringSubmatch(part); m != nil {
		r = Requirement{Key: m[1], In: m[2] == "in"}
		for value := range strings.SplitSeq(m[3], ",") {
			r.Values = append(r.Values, strings.TrimSpace(value))
		}
	} else if key, value, ok := strings.Cut(part, "!="); ok {
		r = Requirement{Key: key, Values: []string{strings.TrimSpace(value)}}
	} else if key, value, ok := strings.Cut(part, "="); ok {
		r = Requirement{Key: key, In: true, Values: []string{strings.TrimSpace(strings.TrimPrefix(value, "="))}}
	} else if key, not := strings.CutPrefix(part, "!"); not {
		r = Requirement{Key: key}
	} else {
		r = Requirement{Key: part, In: true}
	}
	r.Key = strings.TrimSpace(r.Key)
	if err := ParseLabelKey(r.Key); err != nil {
		return r, fmt.Errorf("%q is no requirement such as key=value, key!=value, key, !key, key in (a,b) or key notin (a,b)", part)
	}
	for _, value := range r.Values {
		if err := ParseLabelValue(value); err != nil {
			return r, fmt.Errorf("the value of %s %w", r.Key, err)
		}
	}
	return r, nil
}

// String writes the selector in the form that ParseSelector reads.
func (s Selector) String() string {
	var parts []string
	for _, r := range s {
		switch {
		case len(r.Values) == 0 && r.In:
			parts = append(parts, r.Key)
		case len(r.Values) == 0:
			parts = append(parts, "!"+r.Key)
		case r.In:
			parts = append(parts, r.Key+" in ("+strings.Join(r.Values, ",")+")")
		default:
			parts = append(parts, r.Key+" notin ("+strings.Join(r.Values, ",")+")")
		}
	}
	return strings.Join(parts, ",")
}
