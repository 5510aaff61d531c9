package store

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

// FuzzParseHostKey: equal keys are equal texts, of one line without a comment.
func FuzzParseHostKey(f *testing.F) {
	const ed25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
	for _, text := range []string{"", ed25519, ed25519 + " root@web1", "command=\"id\" " + ed25519, "# c\n\n" + ed25519 + "\r\n", ed25519 + "\n" + ed25519, "ssh-rsa " + ed25519[12:], "ssh-ed25519 AAAA", "ssh-ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		key, print, err := parseHostKey(text)
		if err != nil {
			require.Equal(t, fleet.Invalid, fleet.KindOf(err))
			require.Less(t, len(err.Error()), 200)
			return
		}
		require.Len(t, strings.Fields(key), 2, "%q", key)
		require.NotContains(t, key, "\n")
		require.True(t, strings.HasPrefix(print, "SHA256:"), print)
		again, same, err := parseHostKey(key + " a comment")
		require.NoError(t, err)
		require.Equal(t, key, again)
		require.Equal(t, print, same)
	})
}

// FuzzCursors: what a client gives back as the place in a list is one that a list
// can have, or its fault.
func FuzzCursors(f *testing.F) {
	for _, text := range []string{"", "0", "7", "-1", "+1", "1-2", "1--2", "18446744073709551615-0", "18446744073709551616-0", "1-9223372036854775808", "9223372036854775808", "1-", "-", "1' OR 1=1", "0x1-1", "1_0"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := number(text, 0)
		require.GreaterOrEqual(t, n, int64(0))
		if err != nil {
			require.Equal(t, fleet.Invalid, fleet.KindOf(err))
			require.Less(t, len(err.Error()), 200)
		}
		xid, seq, err := eventCursor(text)
		if err != nil {
			require.Equal(t, fleet.Invalid, fleet.KindOf(err))
			require.Less(t, len(err.Error()), 200)
			return
		}
		require.GreaterOrEqual(t, seq, int64(-1))
		require.Empty(t, strings.Trim(xid, "0123456789"), "%q", xid)
	})
}
