package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"commissaire/internal/fleet"
)

func TestDecodeObject(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text  string
		field string // blamed member, "" when it is right
	}{
		"object":                   {`{"a":1,"b":[true,null,"x"],"c":{"d":1.5}}`, ""},
		"nothing":                  {``, ""},
		"spaces":                   {" \r\n\t", ""},
		"byte order mark":          {"\ufeff{}", ""},
		"spaces around":            {" {} \n", ""},
		"list":                     {`[]`, "body"},
		"string":                   {`"x"`, "body"},
		"number":                   {`1`, "body"},
		"null":                     {`null`, "body"},
		"cut":                      {`{"a":`, "a"},
		"cut in a name":            {`{"a`, "body"},
		"not JSON":                 {`hello`, "body"},
		"single quotes":            {`{'a':1}`, "body"},
		"comma at the end":         {`{"a":1,}`, "body"},
		"text after":               {`{} x`, "body"},
		"second object":            {`{}{}`, "body"},
		"closing brace after":      {`{}}`, "body"},
		"twice":                    {`{"a":1,"a":1}`, "a"},
		"twice by escapes":         {`{"a":1,"\u0061":1}`, "a"},
		"twice, deeper":            {`{"o":{"a":1,"a":2}}`, "o.a"},
		"1e400":                    {`{"a":1e400}`, "a"},
		"1e400 in a list":          {`{"a":[0,1e400]}`, "a[1]"},
		"NaN":                      {`{"a":NaN}`, "a"},
		"leading zero":             {`{"a":01}`, "body"},
		"NUL in a string":          {`{"a":"\u0000"}`, "a"},
		"NUL in a name":            {`{"o":{"\u0000":1}}`, "o"},
		"raw control byte":         {"{\"a\":\"\x01\"}", "a"},
		"broken UTF-8":             {"{\"a\":\"\xff\"}", "body"},
		"half a pair":              {`{"a":["x","\ud800"]}`, "a[1]"},
		"the other half":           {`{"a":"\uDC00"}`, "a"},
		"half a pair, then not":    {`{"a":"\ud83d\u0041"}`, "a"},
		"half a pair, then text":   {`{"a":"\ud83d"    ,"b":1}`, "a"},
		"half a pair behind one":   {`{"a":"\ud83d\ude00\ud83d\n"}`, "a"},
		"a pair":                   {`{"a":"\ud83d\ude00 \ufffd"}`, ""},
		"no escape of half a pair": {`{"a":"\\ud800 \uFFFD"}`, ""},
		"U+FFFD":                   {"{\"a\":\"\ufffd\"}", ""},
		"deep, but not too":        {`{"a":` + strings.Repeat(`[`, 31) + strings.Repeat(`]`, 31) + `}`, ""},
		"too deep":                 {strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 100), strings.TrimSuffix(strings.Repeat("a.", 33), ".")},
		"a hundred thousand lists": {`{"a":` + strings.Repeat(`[`, 100_000), "a" + strings.Repeat("[0]", 32)},
	} {
		object, err := decodeObject([]byte(test.text))
		if test.field == "" {
			require.NoError(t, err, name)
			require.NotNil(t, object, name)
			continue
		}
		var invalid *fleet.Error
		require.ErrorAs(t, err, &invalid, name)
		require.Equal(t, fleet.Invalid, invalid.Kind, name)
		require.Equal(t, test.field, invalid.Fields[0].Field, name)
	}
}

// FuzzDecodeObject: whatever is accepted is what encoding/json sees too.
func FuzzDecodeObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, ``, `[]`, `{"a":1}`, `{"a":1,"a":2}`, `{"a":{"b":[1,2,{"c":null}]}}`, `{"a":1e400}`, `{"a":-0}`, `{"a":"\ud800"}`,
		`{"ssh_priv_key":"LS0t","remote_user":"root"}`, `{"old":[],"new":["192.0.2.1"]}`, `{"options":{"a":{"b":{}}}}`, "{\"a\":\"\xff\"}", "\ufeff{}", `{}x`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		object, err := decodeObject(text)
		if err != nil {
			if fleet.KindOf(err) != fleet.Invalid {
				t.Fatalf("kind %q: %v", fleet.KindOf(err), err)
			}
			if object != nil {
				t.Fatal("both an object and an error")
			}
			return
		}
		want := map[string]any{}
		trimmed := strings.TrimPrefix(string(text), "\ufeff")
		if strings.TrimSpace(trimmed) != "" {
			if err := json.Unmarshal([]byte(trimmed), &want); err != nil {
				t.Fatalf("accepted what encoding/json refuses: %v", err)
			}
		}
		if !reflect.DeepEqual(object, want) {
			t.Fatalf("decoded %v, encoding/json %v", object, want)
		}
	})
}
