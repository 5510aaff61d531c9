package app

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"commissaire/internal/config"
)

// TestSourcesTellAllMistakes: an entry without a name hides none of the mistakes of others.
func TestSourcesTellAllMistakes(t *testing.T) {
	t.Parallel()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	config.Flags(flags)
	require.NoError(t, flags.Parse([]string{"--no-config-file"}))
	c, err := config.Load(flags, []string{`COMMISSAIRE_HOST_SOURCES=[{"name": "a", "type": "ansibel"}, {"type": "ansible", "path": "/x"}, {"type": "ansible", "path": "/y"}, {"name": "b", "type": "ansible", "path": "relative"}]`}, strings.NewReader(""))
	require.NoError(t, err)
	_, err = hostSources(c.Config)
	for _, says := range []string{
		"source 1, a: option type must be one of",
		"source 2: option name must be small letters",
		"source 3: option name must be small letters",
		"source 4, b: option path must be an absolute path",
	} {
		require.ErrorContains(t, err, says)
	}
	require.NotContains(t, err.Error(), "of another source")
}
