// A dry run of publishing: publish MODULE_DIRECTORY.
//
// It makes the module's zip file as the module proxies do, offers that in a proxy of files, and has an empty module get it
// and build the example with it. The module has no host yet, which a published one needs, so it is done under the path
// example.com/backscroll.
package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

const (
	name    = "backscroll"
	path    = "example.com/backscroll"
	version = "v0.1.0"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: publish MODULE_DIRECTORY")
	}
	place, err := os.MkdirTemp("", "backscroll-publish-")
	if err == nil {
		err = publish(os.Args[1], place)
		_ = os.RemoveAll(place)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func publish(directory, place string) error {
	source, proxy := filepath.Join(place, "source"), filepath.Join(place, "proxy")
	if err := copyModule(directory, source); err != nil {
		return err
	}
	if err := offer(source, proxy); err != nil {
		return err
	}
	return use(source, proxy, filepath.Join(place, "application"))
}

// copyModule copies what is part of the module, under its path.
func copyModule(directory, target string) error {
	return filepath.WalkDir(directory, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(directory, file)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if relative == "build" || relative == "development" {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(target, relative), 0o700)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(target, relative), renamed(text), 0o600)
	})
}

// renamed has the module's path in place of its name, in go.mod and in imports.
func renamed(text []byte) []byte {
	for before, after := range map[string]string{
		"module " + name + "\n": "module " + path + "\n", `"` + name + `"` + "\n": `"` + path + `"` + "\n", `"` + name + "/": `"` + path + "/",
	} {
		text = bytes.ReplaceAll(text, []byte(before), []byte(after))
	}
	return text
}

// offer makes the files of a proxy.
func offer(source, proxy string) error {
	place := filepath.Join(proxy, path, "@v")
	if err := os.MkdirAll(place, 0o700); err != nil {
		return err
	}
	checked, err := zip.CheckDir(source)
	if err != nil {
		return err
	}
	if err := checked.Err(); err != nil {
		return err
	}
	packed, err := os.Create(filepath.Join(place, version+".zip"))
	if err != nil {
		return err
	}
	if err := zip.CreateFromDir(packed, module.Version{Path: path, Version: version}, source); err != nil {
		return err
	}
	size, err := packed.Seek(0, 1)
	if err != nil {
		return err
	}
	fmt.Printf("%s %s: %d files, %d kB packed\n", name, version, len(checked.Valid), size/1000)
	if err := packed.Close(); err != nil {
		return err
	}
	manifest, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return err
	}
	for file, text := range map[string]string{
		"list": version + "\n", version + ".mod": string(manifest), version + ".info": `{"Version": "` + version + `"}`,
	} {
		if err := os.WriteFile(filepath.Join(place, file), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// use has an empty module get it and build the example.
func use(source, proxy, application string) error {
	if err := os.MkdirAll(application, 0o700); err != nil {
		return err
	}
	example, err := os.ReadFile(filepath.Join(source, "example", "main.go"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(application, "main.go"), example, 0o600); err != nil {
		return err
	}
	for _, words := range [][]string{
		{"mod", "init", "application"}, {"get", path + "@" + version}, {"build", "."}, {"vet", "."},
		{"vet", path + "/language"}, {"mod", "verify"},
	} {
		if _, err := goCommand(application, proxy, words...); err != nil {
			return err
		}
	}
	modules, err := goCommand(application, proxy, "list", "-m", "all")
	if err != nil {
		return err
	}
	if used := strings.Fields(modules); strings.Join(used, " ") != "application "+path+" "+version {
		return fmt.Errorf("it brings other modules along: %s", modules)
	}
	fmt.Println("an empty module gets it and builds the example; it has no dependency")
	return nil
}

func goCommand(application, proxy string, words ...string) (string, error) {
	command := exec.Command("go", words...)
	command.Dir = application
	command.Env = append(os.Environ(), "GOPROXY=file://"+proxy, "GONOSUMDB=*", "GOFLAGS=-modcacherw",
		"GOMODCACHE="+filepath.Join(application, "..", "cache"))
	output, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(words, " "), err, output)
	}
	return string(output), nil
}
