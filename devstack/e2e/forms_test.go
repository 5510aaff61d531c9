package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"
)

// needles are byte strings, each in every form in which it might be written
// down, and where to look for them.
type needles struct {
	byPrefix map[uint64][]needle
	maybe    [1 << 16]bool // whether a prefix with this hash exists
}

type needle struct {
	name string
	text []byte
}

const prefix = 8 // bytes; no form may be shorter

func hash(v uint64) uint64 { return v * 0x9e3779b97f4a7c15 >> 48 }

// add adds every form of a secret, and each of them in hex, as Postgres dumps
// binary columns.
func (n *needles) add(name string, secret []byte) {
	for form, text := range forms(secret) {
		n.put(name+" "+form, text)
		n.put(name+" "+form+" in hex", hex.AppendEncode(nil, text))
	}
}

func (n *needles) put(name string, text []byte) {
	if n.byPrefix == nil {
		n.byPrefix = map[uint64][]needle{}
	}
	v := binary.LittleEndian.Uint64(text)
	n.byPrefix[v] = append(n.byPrefix[v], needle{name, text})
	n.maybe[hash(v)] = true
}

// in says which of the needles are in a text.
func (n *needles) in(text []byte) (found []string) {
	seen := map[string]bool{}
	for i := 0; i+prefix <= len(text); i++ {
		v := binary.LittleEndian.Uint64(text[i:])
		if !n.maybe[hash(v)] {
			continue
		}
		for _, c := range n.byPrefix[v] {
			if bytes.HasPrefix(text[i:], c.text) && !seen[c.name] {
				seen[c.name] = true
				found = append(found, c.name)
			}
		}
	}
	return found
}

func forms(secret []byte) map[string][]byte {
	out := map[string][]byte{
		"as it is":       secret,
		"in hex":         hex.AppendEncode(nil, secret),
		"in capital hex": bytes.ToUpper(hex.AppendEncode(nil, secret)),
		"in decimal":     bytes.Trim(fmt.Append(nil, secret), "[]"), // %v of a []byte
		"in Go":          []byte(strings.Trim(strconv.Quote(string(secret)), `"`)),
		"in a query":     []byte(url.QueryEscape(string(secret))),
		"in a path":      []byte(url.PathEscape(string(secret))),
	}
	if text, err := json.Marshal(string(secret)); err == nil {
		out["in JSON"] = bytes.Trim(text, `"`)
	}
	for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "URL base64": base64.RawURLEncoding} {
		for before := range 3 {
			// What stands before and after in the same text shares characters with
			// the secret's ends; the characters in between are its own.
			text := encoding.EncodeToString(append(make([]byte, before), secret...))
			first, last := (before*8+5)/6, (before+len(secret))*8/6
			out[fmt.Sprintf("in %s after %d", name, before)] = []byte(text[first:last])
		}
	}
	return out
}

// addKey adds what is secret in an ed25519 private key: the seed, and the lines
// of its PEM form that hold any of it. The others are the same in all keys.
func (n *needles) addKey(t *testing.T, name, key string) {
	t.Helper()
	seed := seedOf(t, key)
	n.add(name+"'s seed", seed)
	block, _ := pem.Decode([]byte(key))
	at := bytes.Index(block.Bytes, seed)
	require.Positive(t, at)
	var offset, lines int
	for line := range strings.Lines(key) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "-----") {
			continue
		}
		size := len(line) / 4 * 3
		if offset+size-16 >= at && offset+16 <= at+len(seed) {
			n.add(fmt.Sprintf("line %d of %s", offset/size, name), []byte(line))
			lines++
		}
		offset += size
	}
	require.Positive(t, lines)
}

func seedOf(t *testing.T, key string) []byte {
	t.Helper()
	parsed, err := ssh.ParseRawPrivateKey([]byte(key))
	require.NoError(t, err)
	return parsed.(interface{ Seed() []byte }).Seed()
}

// The search finds what it looks for in every form and at any place.
func TestFormsAreFound(t *testing.T) {
	t.Parallel()
	secret := make([]byte, 33)
	_, err := rand.Read(secret)
	require.NoError(t, err)
	var n needles
	n.add("it", secret)
	for before := range 7 {
		within := append(append(make([]byte, before), secret...), "and more"...)
		quoted, err := json.Marshal(map[string]any{"b": within})
		require.NoError(t, err)
		for name, text := range map[string][]byte{
			"raw":         within,
			"base64":      []byte(base64.StdEncoding.EncodeToString(within)),
			"url":         []byte(base64.URLEncoding.EncodeToString(within)),
			"json":        quoted,
			"hex":         hex.AppendEncode(nil, within),
			"HEX":         []byte(fmt.Sprintf("%X", within)),
			"hex of json": hex.AppendEncode(nil, quoted),
			"%v":          fmt.Appendf(nil, "%v", within),
			"%q":          fmt.Appendf(nil, "%q", secret),
			"query":       []byte("a=" + url.QueryEscape(string(secret)) + "&"),
		} {
			require.NotEmpty(t, n.in(text), "%s after %d bytes", name, before)
		}
		within[before+5] ^= 1
		require.Empty(t, n.in(within))
	}
}
