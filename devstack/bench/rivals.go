package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// remoteCommand is what everybody runs on every host. By its path, since the hosts have a
// stand-in of that name.
var remoteCommand = []string{"/bin/uname", "-r"}

// rival is a tool that runs a command on many hosts.
type rival struct {
	name   string // for machines
	title  string
	tool   string   // that must be installed
	argv   []string // {cfg} and {tuned} are configurations of ssh, {hosts} a list, {inventory} Ansible's
	env    []string
	answer string // what each host gives; "" for what the command prints
	warm   bool   // goes over connections that the same command before it left open
}

// tunedSSH is the one setting that makes the difference: by default OpenSSH since 9.0
// agrees on sntrup761, which costs its client some 80 ms of a processor.
const tunedSSH = "-o KexAlgorithms=curve25519-sha256"

// rivals are in the order in which they are shown. Each is there as it comes, with nothing
// changed but how to log in and how many hosts at once, and tuned.
func rivals(count int) []rival {
	n := fmt.Sprint(count)
	ssh := func(config string) []string {
		return append([]string{"xargs", "-a", "{hosts}", "-P", n, "-I{}", "ssh", "-F", config, "{}"}, remoteCommand...)
	}
	pssh := func(config string) []string {
		return append([]string{"parallel-ssh", "-h", "{hosts}", "-p", n, "-i", "-x", "-F " + config}, strings.Join(remoteCommand, " "))
	}
	clush := func(config string) []string {
		return append([]string{"clush", "--hostfile", "{hosts}", "-f", n, "-o", "-F " + config}, remoteCommand...)
	}
	raw := []string{"ansible", "all", "-i", "{inventory}", "-f", n, "-m", "raw", "-a", strings.Join(remoteCommand, " ")}
	ping := []string{"ansible", "all", "-i", "{inventory}", "-f", n, "-m", "ping"}
	const (
		shared = " -o ControlMaster=auto -o ControlPersist=60s"
		pong   = `"ping": "pong"`
	)
	return []rival{
		{name: "xargs-ssh", title: "`xargs -P" + n + " ssh`", tool: "ssh", argv: ssh("{cfg}")},
		{name: "xargs-ssh-tuned", title: "`xargs -P" + n + " ssh`, tuned", tool: "ssh", argv: ssh("{tuned}")},
		{name: "parallel-ssh", title: "`parallel-ssh -p " + n + "`", tool: "parallel-ssh", argv: pssh("{cfg}")},
		{name: "parallel-ssh-tuned", title: "`parallel-ssh -p " + n + "`, tuned", tool: "parallel-ssh", argv: pssh("{tuned}")},
		{name: "clush", title: "`clush -f " + n + "`", tool: "clush", argv: clush("{cfg}")},
		{name: "clush-tuned", title: "`clush -f " + n + "`, tuned", tool: "clush", argv: clush("{tuned}")},
		{name: "ansible-raw", title: "`ansible -m raw`", tool: "ansible", argv: raw},
		{name: "ansible-raw-tuned", title: "`ansible -m raw`, tuned", tool: "ansible", argv: raw, env: []string{"ANSIBLE_SSH_ARGS=" + tunedSSH}},
		{name: "ansible-ping", title: "`ansible -m ping`", tool: "ansible", argv: ping, answer: pong},
		{name: "ansible-ping-tuned", title: "`ansible -m ping`, tuned", tool: "ansible", argv: ping, answer: pong,
			env: []string{"ANSIBLE_PIPELINING=True", "ANSIBLE_SSH_ARGS=" + tunedSSH + shared}},
		{name: "xargs-ssh-open", title: "`xargs -P" + n + " ssh`, ControlPersist", tool: "ssh", argv: ssh("{shared}"), warm: true},
		{name: "ansible-raw-open", title: "`ansible -m raw`, tuned, ControlPersist", tool: "ansible", argv: raw, warm: true,
			env: []string{"ANSIBLE_SSH_ARGS=" + tunedSSH + shared}},
	}
}

// installed says whether the tool is there.
func (r rival) installed() bool {
	_, err := exec.LookPath(r.tool)
	return err == nil
}

// lane is where rivals run: their files, and the process below which they do.
type lane struct {
	dir     string
	hosts   int
	release string // what remoteCommand prints
	keeper  *keeper
	files   *strings.Replacer
	env     []string
}

// rivalLimit is how long one run may take.
const rivalLimit = 2 * time.Minute

// openLane writes the files that tell the rivals of the hosts. They check host keys, as
// the product does.
func openLane(ctx context.Context, dir string, s site) (*lane, error) {
	home := filepath.Join(dir, "home")
	if err := os.MkdirAll(filepath.Join(home, "cm"), 0o700); err != nil {
		return nil, err
	}
	name := func(file string) string { return filepath.Join(dir, file) }
	var known, list, inventory strings.Builder
	for _, h := range s.Hosts {
		fmt.Fprintf(&known, "[%s]:%d %s\n", h.Address, h.Port, h.HostKey)
		fmt.Fprintln(&list, h.Address)
		fmt.Fprintf(&inventory, "%s ansible_port=%d ansible_user=%s ansible_python_interpreter=/usr/bin/python3\n", h.Address, h.Port, h.User)
	}
	config := fmt.Sprintf(`Host *
Port %d
User %s
IdentityFile %s
IdentitiesOnly yes
BatchMode yes
StrictHostKeyChecking yes
UserKnownHostsFile %s
GlobalKnownHostsFile /dev/null
LogLevel ERROR
`, s.Hosts[0].Port, s.Hosts[0].User, name("key"), name("known_hosts"))
	tuned := config + "KexAlgorithms curve25519-sha256\n"
	for file, text := range map[string]string{
		"key": s.Key, "known_hosts": known.String(), "hosts": list.String(), "inventory": inventory.String(),
		"config": config, "config.tuned": tuned,
		"config.shared": tuned + "ControlMaster auto\nControlPersist 60s\nControlPath " + filepath.Join(home, "cm", "%C") + "\n",
	} {
		if err := os.WriteFile(name(file), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	release, err := exec.CommandContext(ctx, remoteCommand[0], remoteCommand[1:]...).Output()
	if err != nil {
		return nil, err
	}
	k, err := startKeeper()
	if err != nil {
		return nil, err
	}
	return &lane{
		dir: dir, hosts: len(s.Hosts), release: strings.TrimSpace(string(release)), keeper: k,
		files: strings.NewReplacer("{cfg}", name("config"), "{tuned}", name("config.tuned"), "{shared}", name("config.shared"),
			"{hosts}", name("hosts"), "{inventory}", name("inventory")),
		env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home, "LC_ALL=C.UTF-8", "TERM=dumb",
			"ANSIBLE_SSH_COMMON_ARGS=-F " + name("config"), "ANSIBLE_NOCOLOR=True", "COMMCTL_CONFIG=" + name(commctlConfig),
		},
	}, nil
}

// run runs a rival, and wants an answer of every host.
func (l *lane) run(ctx context.Context, r rival) (time.Duration, error) {
	out := filepath.Join(l.dir, r.name+".out")
	argv := make([]string, len(r.argv))
	for i, word := range r.argv {
		argv[i] = l.files.Replace(word)
	}
	wall, err := l.keeper.do(ctx, task{Argv: argv, Env: append(l.env, r.env...), Out: out, Limit: rivalLimit})
	said, readErr := os.ReadFile(out)
	if err = errors.Join(err, readErr); err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", r.name, err, tail(said))
	}
	answer := r.answer
	if answer == "" {
		answer = l.release
	}
	if n := bytes.Count(said, []byte(answer)); n != l.hosts {
		return 0, fmt.Errorf("%s: %d answers of %d hosts\n%s", r.name, n, l.hosts, tail(said))
	}
	return wall, nil
}

// tail is the end of an output, for an error.
func tail(text []byte) []byte {
	const most = 2000
	return text[max(0, len(text)-most):]
}
