package config

import (
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Redacted stands where a secret is not shown.
const Redacted = "[redacted]"

// secretOption matches the names of options that hold a secret, or a hash of
// one. The name of a file or the address of a service is none.
var secretOption = regexp.MustCompile(`(?i)(hash|password|passwd|passphrase|secret|token|api[-_]?key|key[-_]?data|credentials?)$`)

// Shown is a setting as it may be shown to anybody.
type Shown struct {
	Setting string `json:"setting" yaml:"setting"`
	Value   any    `json:"value" yaml:"value"`
	Origin  string `json:"origin" yaml:"origin"`
}

// View gives every setting with its origin: "default", "file PATH", "standard
// input", "environment NAME" or "flag --NAME". Secrets are replaced.
func (l *Loaded) View() []Shown {
	v := reflect.ValueOf(l.Config).Elem()
	var out []Shown
	for i, s := range Settings() {
		out = append(out, Shown{Setting: s.Name, Value: show(s.Name, v.Field(i).Interface()), Origin: l.origins[s.Name]})
	}
	return out
}

func show(name string, value any) any {
	switch v := value.(type) {
	case time.Duration:
		return v.String()
	case []string:
		return append([]string{}, v...) // so that none is shown as a list, too
	case []Plugin:
		list := []any{}
		for _, p := range v {
			shown := withoutSecrets(p.Options).(map[string]any)
			shown["name"] = p.Name
			list = append(list, shown)
		}
		return list
	case string:
		if name == "database-url" {
			return withoutPassword(v)
		}
	}
	return value
}

// withoutSecrets copies a value of a plug-in's options.
func withoutSecrets(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, inner := range v {
			text, isText := inner.(string)
			switch {
			case secretOption.MatchString(name), name == "users" && isText && !isObject(text): // whatever that is meant to be
				out[name] = Redacted
			default:
				out[name] = withoutSecrets(inner)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = withoutSecrets(v[i])
		}
		return out
	case string:
		if isObject(v) { // an object may be written as text
			object, err := parseJSON([]byte(v))
			if err != nil {
				return Redacted
			}
			return withoutSecrets(object)
		}
		if strings.Contains(v, "://") && strings.Contains(v, "@") {
			u, err := url.Parse(v)
			if err != nil {
				return Redacted
			}
			u.User = nil // whom to log in as
			return u.String()
		}
	}
	return value
}

func isObject(text string) bool { return strings.HasPrefix(strings.TrimSpace(text), "{") }

// keywordPassword is a password in a keyword string (libpq, "Connection Strings").
var keywordPassword = regexp.MustCompile(`(\w*password\s*=\s*)('(?:\\.|[^'\\])*'|\S+)`)

// withoutPassword shows a Postgres connection string without its passwords. When
// it cannot be told what is one, nothing is shown.
func withoutPassword(dsn string) string {
	if dsn == "" {
		return ""
	}
	parsed, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return Redacted
	}
	shown := keywordPassword.ReplaceAllString(dsn, "${1}"+Redacted)
	if strings.Contains(dsn, "://") {
		u, err := url.Parse(dsn)
		if err != nil {
			return Redacted
		}
		u.User = url.User(u.User.Username())
		query := u.Query()
		for name := range query {
			if strings.Contains(name, "password") {
				query.Del(name)
			}
		}
		u.RawQuery = query.Encode()
		shown = u.String()
	}
	if parsed.Password != "" && strings.Contains(shown, parsed.Password) {
		return Redacted
	}
	return shown
}
