package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const leak = "hunter2-hunter2"

// spellings are the ways the secret could show through: as text, in hex, in
// decimal bytes, in base64.
var spellings = []string{
	leak, "hunter", fmt.Sprintf("%x", leak), fmt.Sprintf("%X", leak), "0x68", "104, 117", "104 117", "aHVudGVy",
}

func requireNoLeak(t *testing.T, printed string) {
	t.Helper()
	for _, s := range spellings {
		if strings.Contains(printed, s) {
			t.Fatalf("the secret shows as %q in %q", s, printed)
		}
	}
}

type outer struct {
	Creds  HostCreds
	Ptr    *Text
	hidden Text
	inner  struct{ deeper []Text }
}

func leaky() (Text, outer) {
	text := NewText([]byte(leak))
	o := outer{Creds: HostCreds{RemoteUser: "root", PrivateKey: text}, Ptr: &text, hidden: text}
	o.inner.deeper = []Text{text}
	return text, o
}

func TestTextFmt(t *testing.T) {
	t.Parallel()
	text, o := leaky()
	for _, verb := range strings.Split("v +v #v s q x X d # x o b c U e t p T 10s -5q", " ") {
		for _, value := range []any{text, &text, o, &o, o.Creds, []Text{text}, map[string]Text{"k": text}, []any{o}, error(fmt.Errorf("x %v", text))} {
			requireNoLeak(t, fmt.Sprintf("%"+verb, value))
		}
	}
	require.Equal(t, Redacted, fmt.Sprintf("%v", text))
	require.Equal(t, Redacted, fmt.Sprintf("%x", text))
	require.Equal(t, Redacted, text.String())
	require.Equal(t, Redacted, text.GoString())
	require.Equal(t, "{RemoteUser:root PrivateKey:[redacted]}", fmt.Sprintf("%+v", o.Creds))
	requireNoLeak(t, fmt.Sprint(errors.Join(fmt.Errorf("a: %#v", o), fmt.Errorf("b: %+v", &o))))
}

func TestTextEncoders(t *testing.T) {
	t.Parallel()
	text, o := leaky()

	j, err := json.Marshal(o)
	require.NoError(t, err)
	requireNoLeak(t, string(j))
	require.Contains(t, string(j), Redacted)
	require.Error(t, json.Unmarshal([]byte(`"x"`), new(Text)), "a secret never arrives by accident")

	y, err := yaml.Marshal(o)
	require.NoError(t, err)
	requireNoLeak(t, string(y))
	require.Contains(t, string(y), Redacted)

	x, err := xml.Marshal(o.Creds)
	require.NoError(t, err)
	requireNoLeak(t, string(x))

	var g bytes.Buffer
	require.Error(t, gob.NewEncoder(&g).Encode(o), "gob refuses it")
	requireNoLeak(t, g.String())
	g.Reset()
	require.Error(t, gob.NewEncoder(&g).Encode(text))
	requireNoLeak(t, g.String())

	for _, handler := range []func(*bytes.Buffer) slog.Handler{
		func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(handler(&b)).Info("login", "text", text, "ptr", &text, "creds", o.Creds, "all", o, slog.Any("group", []any{o}))
		requireNoLeak(t, b.String())
	}
}

// recorder is a testing.T that keeps what a failed assertion prints.
type recorder struct{ printed strings.Builder }

func (r *recorder) Errorf(format string, args ...any) { fmt.Fprintf(&r.printed, format, args...) }
func (r *recorder) FailNow()                          {}

func TestTextInFailedAssertions(t *testing.T) {
	t.Parallel()
	text, o := leaky()
	var r recorder
	require.Equal(&r, o, outer{})
	require.Equal(&r, text, Text{})
	require.Contains(&r, []outer{o}, outer{})
	require.Nil(&r, &o)
	require.NotEmpty(t, r.printed.String())
	requireNoLeak(t, r.printed.String())
	requireNoLeak(t, cmp.Diff(o.Creds, HostCreds{}))
	require.Empty(t, cmp.Diff(o.Creds, HostCreds{RemoteUser: "root", PrivateKey: NewText([]byte(leak))}), "cmp uses Equal")
}

func TestText(t *testing.T) {
	t.Parallel()
	source := []byte(leak)
	text := NewText(source)
	source[0] = 'X'
	text.Reveal()[1] = 'X'
	require.Equal(t, leak, string(text.Reveal()), "nobody else can change it")
	require.False(t, text.Empty())

	require.True(t, text.Equal(NewText([]byte(leak))))
	require.False(t, text.Equal(NewText([]byte(leak+"x"))))
	require.False(t, text.Equal(Text{}))

	require.True(t, Text{}.Empty())
	require.True(t, NewText(nil).Empty())
	require.True(t, Text{}.Equal(NewText([]byte{})))
	require.Nil(t, Text{}.Reveal())
	require.Equal(t, Redacted, fmt.Sprint(Text{}), "an empty one does not say so either")
}
