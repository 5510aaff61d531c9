package authn

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"commissaire/internal/fleet"
	"commissaire/internal/nearest"
)

// options reads the options of one spec. What is wrong with them is gathered, so
// that all of it can be told at once; no value is ever repeated.
type options struct {
	values map[string]any // under names with "_"
	errs   []error
}

// newOptions takes what a spec holds. Only known names may be there.
func newOptions(given map[string]any, known []Option) *options {
	o := &options{values: map[string]any{}}
	var names []string
	for _, k := range known {
		names = append(names, k.Name)
	}
	for written, value := range given {
		name := strings.ReplaceAll(written, "-", "_")
		if _, twice := o.values[name]; twice {
			o.fail(name, "is given twice")
		}
		if !slices.Contains(names, name) {
			o.fail(written, "is not known%s", nearest.Hint(name, names))
		}
		if value != nil {
			o.values[name] = value
		}
	}
	return o
}

// fail notes that an option is wrong.
func (o *options) fail(option, format string, args ...any) {
	o.errs = append(o.errs, fmt.Errorf("option %s %s", option, fmt.Sprintf(format, args...)))
}

// err gives all that is wrong, on one line and in an order that does not change.
func (o *options) err() error {
	var texts []string
	for _, err := range o.errs {
		texts = append(texts, err.Error())
	}
	if texts == nil {
		return nil
	}
	slices.Sort(texts)
	return errors.New(strings.Join(texts, "; "))
}

// text reads an option that is text, "" when it is not given.
func (o *options) text(name string) string {
	value, given := o.values[name]
	s, ok := value.(string)
	if given && !ok {
		o.fail(name, "must be text")
	}
	return s
}

func (o *options) textOr(name, otherwise string) string {
	if s := o.text(name); s != "" {
		return s
	}
	return otherwise
}

// needed reads an option that must be given.
func (o *options) needed(name string) string {
	s := o.text(name)
	if value := o.values[name]; value == nil || value == "" {
		o.fail(name, "is needed")
	}
	return s
}

// object reads an option that is an object, or text that is one in JSON, as flags
// and environment variables give it.
func (o *options) object(name string) map[string]any {
	switch v := o.values[name].(type) {
	case nil:
		return nil
	case map[string]any:
		return v
	case string:
		var object map[string]any
		if json.Unmarshal([]byte(v), &object) == nil && object != nil {
			return object
		}
	}
	o.fail(name, "must be an object")
	return nil
}

func (o *options) roleOr(name string, otherwise fleet.Role) fleet.Role {
	s := o.text(name)
	if s == "" {
		return otherwise
	}
	role, err := fleet.ParseRole(name, s)
	if err != nil {
		o.fail(name, "must be viewer, operator or admin")
	}
	return role
}

// roles reads an object from names to roles, nil when it is not given.
func (o *options) roles(name string) map[string]fleet.Role {
	object := o.object(name)
	if object == nil {
		return nil
	}
	roles := map[string]fleet.Role{}
	for member, value := range object {
		s, _ := value.(string)
		role, err := fleet.ParseRole(name, s)
		if err != nil {
			o.fail(name, "must give viewer, operator or admin to %q", member)
		}
		roles[member] = role
	}
	return roles
}

// users reads the inline users of HTTP Basic.
func (o *options) users(name string) map[string]User {
	users := map[string]User{}
	for user, value := range o.object(name) {
		u, err := toUser(user, value)
		if err != nil {
			o.fail(name, "is wrong: %v", err)
		}
		users[user] = u
	}
	return users
}

func toUser(name string, value any) (User, error) {
	members, ok := value.(map[string]any)
	if !ok {
		return User{}, fmt.Errorf("user %q must be an object with a hash", name)
	}
	var u User
	for member, value := range members {
		s, ok := value.(string)
		if !ok {
			return User{}, fmt.Errorf("user %q: %s must be text", name, member)
		}
		switch member {
		case "hash":
			u.Hash = s
		case "role":
			u.Role = fleet.Role(s)
		default:
			return User{}, fmt.Errorf("user %q: member %q is not known%s", name, member, nearest.Hint(member, []string{"hash", "role"}))
		}
	}
	return u, u.check(name)
}

// timeoutBounds are what an operator may wait for others.
var timeoutBounds = [2]time.Duration{100 * time.Millisecond, 30 * time.Second}

func (o *options) timeout(name string) time.Duration {
	s := o.text(name)
	if s == "" {
		return defaultTimeout
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < timeoutBounds[0] || d > timeoutBounds[1] {
		o.fail(name, "must be a time like 5s, from %s to %s", timeoutBounds[0], timeoutBounds[1])
	}
	return d
}

// url reads the URL of a service, under the first of names that is given. It is
// never nil.
func (o *options) url(names ...string) *url.URL {
	name := names[0]
	for _, other := range names[1:] {
		if o.values[other] == nil {
			continue
		}
		if o.values[name] != nil {
			o.fail(other, "is the same as %s", name)
		}
		name = other
	}
	s := o.needed(name)
	u, err := url.Parse(s)
	if err != nil {
		o.fail(name, "is no URL")
		return &url.URL{}
	}
	if s != "" && ((u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.RawQuery != "") {
		o.fail(name, "must be a URL like https://host:port/path, without user, query and fragment")
	}
	return u
}

// inClear says whether a text is a URL to which all that is sent can be read on the
// way.
func inClear(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback())
}

// client makes the HTTP client that trusts ca_file, or the authorities of the
// system.
func (o *options) client() *http.Client {
	file := o.text("ca_file")
	if file == "" {
		return newClient(nil)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		o.fail("ca_file", "cannot be read: %v", err)
		return nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		o.fail("ca_file", "holds no certificate in PEM form")
	}
	return newClient(roots)
}
