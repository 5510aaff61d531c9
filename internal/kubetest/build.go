package kubetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// program is one that Build builds.
type program struct {
	name    string
	pkg     string
	module  string // folder below kubestack
	ldflags string
}

// An apiserver that was not told its version says v0.0.0-master.
const versionPackage = "k8s.io/component-base/version"

var kubernetesFlags = fmt.Sprintf("-X %[1]s.gitVersion=v%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s",
	versionPackage, KubernetesVersion, strings.Split(KubernetesVersion, ".")[0], strings.Split(KubernetesVersion, ".")[1])

var programs = []program{
	{name: etcd, pkg: "go.etcd.io/etcd/server/v3"},
	{name: apiServer, pkg: "k8s.io/kubernetes/cmd/kube-apiserver", ldflags: kubernetesFlags},
	{name: controllerManager, pkg: "k8s.io/kubernetes/cmd/kube-controller-manager", ldflags: kubernetesFlags},
	{name: scheduler, pkg: "k8s.io/kubernetes/cmd/kube-scheduler", ldflags: kubernetesFlags},
	{name: kwok, pkg: "sigs.k8s.io/kwok/cmd/kwok", module: "kwok"},
}

// stages are the files of KWOK's module that make nodes and pods live at once.
var stages = []string{
	"kustomize/stage/node/fast/node-initialize.yaml",
	"kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
	"kustomize/stage/pod/fast/pod-ready.yaml",
	"kustomize/stage/pod/fast/pod-complete.yaml",
	"kustomize/stage/pod/fast/pod-delete.yaml",
}

// Build builds what is not in BinDir yet, one build at a time on a machine, with
// the least priority. root is the folder of the repository; progress goes to out.
// It takes about 13 minutes of CPU time when nothing is cached. The folder
// appears whole or not at all.
func Build(ctx context.Context, root string, out io.Writer) error {
	dir, err := BinDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	unlock, err := lockBuild(dir + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	unfinished := dir + ".unfinished"
	if err := errors.Join(os.RemoveAll(unfinished), os.Mkdir(unfinished, 0o755)); err != nil {
		return err
	}
	for _, p := range programs {
		fmt.Fprintf(out, "building %s\n", p.name)
		if err := p.build(ctx, root, filepath.Join(unfinished, p.name), out); err != nil {
			return fmt.Errorf("build %s: %w", p.name, err)
		}
	}
	if err := copyStages(ctx, root, filepath.Join(unfinished, stagesFile)); err != nil {
		return fmt.Errorf("stages of KWOK: %w", err)
	}
	return os.Rename(unfinished, dir)
}

func (p program) build(ctx context.Context, root, target string, out io.Writer) error {
	cmd := exec.CommandContext(ctx, "nice", "-n", "19", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w "+p.ldflags, "-o", target, p.pkg)
	cmd.Dir = filepath.Join(root, "kubestack", p.module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH, "GOWORK=off")
	cmd.Stdout, cmd.Stderr = out, out
	return cmd.Run()
}

func copyStages(ctx context.Context, root, target string) error {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok")
	cmd.Dir = filepath.Join(root, "kubestack", "kwok")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	module, err := cmd.Output()
	if err != nil {
		return err
	}
	var all [][]byte
	for _, name := range stages {
		stage, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(module)), name))
		if err != nil {
			return err
		}
		all = append(all, stage)
	}
	return os.WriteFile(target, bytes.Join(all, []byte("\n---\n")), 0o644)
}

// lockBuild waits for another build on this machine to end.
func lockBuild(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}
