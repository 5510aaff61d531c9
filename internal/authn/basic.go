package authn

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"commissaire/internal/fleet"
)

// VerifiedFor is how long a password that was checked once is believed without
// another bcrypt run, which takes a quarter of a second at cost 12.
const VerifiedFor = time.Minute

// Basic is the HTTP Basic plug-in (RFC 7617) over bcrypt hashes.
type Basic struct {
	users   *userFile
	grants  grants
	key     [32]byte      // of this process, for the MACs in verified
	slots   chan struct{} // bcrypt runs at once, so that a flood leaves the CPU to others
	now     func() time.Time
	compare func(hash, password []byte) error

	mu       sync.Mutex
	verified map[string]verified // by user; one entry at most for each known user
}

// verified remembers that a password was right. The MAC covers user, hash and
// password, so another hash in the users file makes it worthless at once.
type verified struct {
	mac   [sha256.Size]byte
	until time.Time
}

// BasicOptions configure the plug-in. Users of the file win over inline ones.
type BasicOptions struct {
	File  string          // users.json; "" when there are inline users only
	Users map[string]User // inline users
	// Role of users whose entry names none; "" is admin, since the users files of
	// old know no roles.
	Role  fleet.Role
	Roles map[string]fleet.Role // by user; wins over entry and Role
}

// NewBasic makes the plug-in. It always works: what is wrong with the users is
// logged, and everybody is refused until it is mended.
func NewBasic(o BasicOptions, logger *slog.Logger) *Basic {
	b := &Basic{
		users:    newUserFile(o, logger),
		grants:   grants{role: cmp.Or(o.Role, fleet.RoleAdmin), names: o.Roles},
		slots:    make(chan struct{}, runtime.GOMAXPROCS(0)),
		now:      time.Now,
		compare:  bcrypt.CompareHashAndPassword,
		key:      newKey(),
		verified: map[string]verified{},
	}
	b.users.current() // so that a broken file is told at the start
	return b
}

// Name is "httpbasicauth".
func (b *Basic) Name() string { return "httpbasicauth" }

// Authenticate checks the Authorization header. A caller without one costs
// nothing, one with an unknown user costs a bcrypt run like a wrong password.
func (b *Basic) Authenticate(ctx context.Context, r *http.Request) (Principal, error) {
	name, password, ok := ParseBasic(r.Header.Get("Authorization"))
	if !ok {
		return Principal{}, errAbsent
	}
	if _, _, _, ok := ParseToken(password); ok {
		return Principal{}, errAbsent // worth no bcrypt run, it is for apitoken
	}
	users := b.users.current()
	hash, known := users.hash(name)
	who := Principal{Name: name, Role: b.grants.of(name, users.users[name].Role)}
	mac := macOf(b.key, name, hash, password)
	if known && b.remembered(name, mac) {
		return who, nil
	}
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	case <-ctx.Done():
		return Principal{}, ctx.Err()
	}
	if known && b.remembered(name, mac) {
		return who, nil // another request of the same client was first: they come in dozens
	}
	if err := b.compare([]byte(hash), []byte(password)); err != nil || !known {
		for _, dummy := range users.padding(hash) {
			_ = b.compare([]byte(dummy), []byte(password))
		}
		return Principal{}, ErrDenied
	}
	b.remember(users, name, mac)
	return who, nil
}

// remembers says whether Authenticate can tell without a bcrypt run that the
// request is good.
func (b *Basic) remembers(r *http.Request) bool {
	name, password, ok := ParseBasic(r.Header.Get("Authorization"))
	if !ok {
		return false
	}
	hash, known := b.users.current().hash(name)
	return known && b.remembered(name, macOf(b.key, name, hash, password))
}

func (b *Basic) remembered(name string, mac [sha256.Size]byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := b.verified[name]
	return ok && hmac.Equal(v.mac[:], mac[:]) && b.now().Before(v.until)
}

// remember stores a verified password and drops users that are gone, so the
// cache never outgrows the users.
func (b *Basic) remember(users userSet, name string, mac [sha256.Size]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for known := range b.verified {
		if _, ok := users.users[known]; !ok {
			delete(b.verified, known)
		}
	}
	b.verified[name] = verified{mac: mac, until: b.now().Add(VerifiedFor)}
}

// maxBasic bounds the credentials; bcrypt reads 72 bytes of a password.
const maxBasic = 4096

// ParseBasic takes an Authorization header apart. The scheme's case does not
// matter, and only the first colon separates, so passwords may hold more.
func ParseBasic(header string) (user, password string, ok bool) {
	scheme, rest, found := strings.Cut(header, " ")
	if !found || !strings.EqualFold(scheme, "basic") || len(rest) > maxBasic {
		return "", "", false
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.Trim(rest, " "))
	if err != nil {
		return "", "", false
	}
	user, password, ok = strings.Cut(string(decoded), ":")
	if !ok || user == "" {
		return "", "", false
	}
	return user, password, true
}
