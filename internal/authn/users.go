package authn

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"commissaire/internal/fleet"
)

// User is one entry of users.json.
type User struct {
	Hash string     `json:"hash"`           // bcrypt: $2a$, $2b$ or $2y$
	Role fleet.Role `json:"role,omitempty"` // "" for that of the plug-in
}

// maxCost bounds the work factor: every step doubles the time, and one login at
// 16 takes four seconds.
const maxCost = 16

// maxUsersFile bounds users.json, in bytes.
const maxUsersFile = 8 << 20

var bcryptPattern = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

// userSet is all users as last loaded.
type userSet struct {
	users map[string]User
	cost  int    // of the costliest hash
	dummy string // a hash nobody has the password of, as costly as the costliest
}

// hash gives the hash to compare with, also for an unknown user, so that the
// time of the answer does not tell which names exist.
func (s userSet) hash(name string) (hash string, known bool) {
	if u, ok := s.users[name]; ok {
		return u.Hash, true
	}
	return s.dummy, false
}

// padding gives hashes that, compared with after hash, make the work the same as
// that of the costliest one: each step of the cost doubles the work, so a hash of
// cost c and dummies of cost c, c+1, … up to the costliest's are as much as it.
// Otherwise a user with a cheap hash would be told from one that is not there.
func (s userSet) padding(hash string) []string {
	var dummies []string
	for cost := costOf(hash); cost < s.cost; cost++ {
		dummies = append(dummies, dummyHash(cost))
	}
	return dummies
}

// userFile is the users of a file and the inline ones, loaded again when the
// file changes.
type userFile struct {
	options BasicOptions
	logger  *slog.Logger

	mu     sync.Mutex
	loaded bool
	seen   stamp
	set    userSet
}

// stamp tells one content of a file from the next without reading it.
type stamp struct {
	file    os.FileInfo // for its device and inode
	size    int64
	mod     time.Time
	settled bool // the file was old enough when read, so the time alone shows a later write
	err     string
}

func newUserFile(o BasicOptions, logger *slog.Logger) *userFile {
	return &userFile{options: o, logger: logger}
}

// current gives the users as the file stands now. It costs one stat.
func (f *userFile) current() userSet {
	now := f.look()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.loaded && f.seen.err == "" && f.seen.same(now) { // after an error always: chmod leaves the time as it is
		return f.set
	}
	set, err := f.load()
	if err != nil && (!f.loaded || f.seen.err != err.Error()) {
		f.logger.Warn("the users cannot be read, so HTTP Basic refuses everybody; mend the file, it is read again by itself",
			"file", f.options.File, "error", err)
	}
	if err == nil && f.loaded && f.seen.err != "" {
		f.logger.Info("the users can be read again", "file", f.options.File, "users", len(set.users))
	}
	if err != nil {
		now.err = err.Error()
	}
	f.loaded, f.seen, f.set = true, now, set
	return set
}

func (f *userFile) look() stamp {
	if f.options.File == "" {
		return stamp{settled: true}
	}
	info, err := os.Stat(f.options.File)
	if err != nil {
		return stamp{}
	}
	// Two writes within one tick of the filesystem's clock have the same time.
	return stamp{file: info, size: info.Size(), mod: info.ModTime(), settled: time.Since(info.ModTime()) > 2*time.Second}
}

func (s stamp) same(now stamp) bool {
	if s.file == nil || now.file == nil {
		return s.settled && now.settled // true for inline users only
	}
	return s.settled && s.size == now.size && s.mod.Equal(now.mod) && os.SameFile(s.file, now.file)
}

// load reads and checks all users. On an error there are none at all: half a
// file would lock out people at random.
func (f *userFile) load() (userSet, error) {
	none := makeSet(nil)
	all := map[string]User{}
	for name, u := range f.options.Users {
		all[name] = u
	}
	if f.options.File != "" {
		fromFile, err := readUsers(f.options.File)
		if err != nil {
			return none, err
		}
		for name, u := range fromFile {
			all[name] = u
		}
	}
	for name, u := range all {
		if err := u.check(name); err != nil {
			return none, err
		}
	}
	return makeSet(all), nil
}

func readUsers(path string) (map[string]User, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxUsersFile+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxUsersFile {
		return nil, fmt.Errorf("larger than %d bytes", maxUsersFile)
	}
	var users map[string]User
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&users); err != nil {
		// The text of a JSON error may quote the file, which holds hashes.
		return nil, errors.New(`not of the form {"user": {"hash": "$2b$12$…", "role": "viewer"}}`)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more text after the JSON object")
	}
	return users, nil
}

func (u User) check(name string) error {
	if name == "" || strings.Contains(name, ":") {
		return fmt.Errorf("user %q: a name must not be empty nor hold a colon", name)
	}
	cost, err := bcrypt.Cost([]byte(u.Hash))
	if err != nil || !bcryptPattern.MatchString(u.Hash) {
		return fmt.Errorf("user %q: the hash is not bcrypt ($2a$, $2b$ or $2y$)", name)
	}
	if cost > maxCost {
		return fmt.Errorf("user %q: bcrypt cost %d is above %d, one login would take too long", name, cost, maxCost)
	}
	if _, err := fleet.ParseRole("role", string(u.Role)); u.Role != "" && err != nil {
		return fmt.Errorf("user %q: the role must be viewer, operator or admin", name)
	}
	return nil
}

func makeSet(users map[string]User) userSet {
	cost := bcrypt.MinCost
	if len(users) == 0 {
		cost = bcrypt.DefaultCost
	}
	for _, u := range users {
		cost = max(cost, costOf(u.Hash))
	}
	return userSet{users: users, cost: cost, dummy: dummyHash(cost)}
}

// costOf gives the cost of a hash that was checked.
func costOf(hash string) int {
	cost, _ := strconv.Atoi(hash[4:6])
	return cost
}

func dummyHash(cost int) string {
	return fmt.Sprintf("$2a$%02d$%s", cost, strings.Repeat(".", 53))
}
