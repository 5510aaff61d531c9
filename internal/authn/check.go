package authn

import "fmt"

// CheckUsers says what is wrong with the users of a spec of httpbasicauth. Build
// only logs it: the file is read again when it changes, so it may be mended while
// a server runs. Of other plug-ins, and of specs that Build refuses, it says nothing.
func CheckUsers(s Spec) error {
	p, err := find(s.Name)
	if err != nil || p.Name != "httpbasicauth" {
		return nil
	}
	o := newOptions(s.Options, p.Options)
	users := BasicOptions{File: o.text("filepath"), Users: o.users("users")}
	if users.File == "" || o.err() != nil {
		return nil
	}
	if _, err := newUserFile(users, nil).load(); err != nil {
		return fmt.Errorf("users of %s: %w", users.File, err)
	}
	return nil
}
