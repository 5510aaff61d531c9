package nearest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHint(t *testing.T) {
	t.Parallel()
	known := []string{"filepath", "users", "url", "domain"}
	for name, want := range map[string]string{
		"file_path": ", did you mean filepath?",
		"user":      ", did you mean users?",
		"urls":      ", did you mean url?",
		"DOMAIN":    "",
		"":          "",
		"bus_uri":   "",
	} {
		require.Equal(t, want, Hint(name, known), name)
	}
}
