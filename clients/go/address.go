package backscroll

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"backscroll/language"
)

const (
	endpointFile     = "endpoint.json"
	tokenVariable    = "BACKSCROLL_TOKEN"
	dataDirVariable  = "BACKSCROLL_DATA_DIR"
	schemeIPC        = "ipc://"
	schemeTCP        = "tcp://"
	schemeCURVE      = "curve://"
	helloPrefix      = "backscroll-hello"
	helloNonceBytes  = 16
	portMax          = 65_535
	endpointFileSize = 1 << 20
	// So much of what a peer says is quoted: it may be anybody.
	quotedBytesMax = 64
)

// location is how to find a daemon: by its data directory, or by its endpoint.
type location struct {
	dataDir, endpoint, token string
}

// address is an endpoint, and over tcp the token that its daemon asks for.
type address struct {
	endpoint, token string
}

// announcement is what a ready daemon wrote into its data directory.
type announcement struct {
	Endpoints []string `json:"endpoints"`
	Token     string   `json:"token"`
}

// find returns where the daemon is. Its files are read anew each time, because a daemon that was started again may have
// another address and another token.
func (l location) find() (address, *Error) {
	if strings.HasPrefix(l.endpoint, schemeIPC) {
		return address{endpoint: l.endpoint}, nil
	}
	directory, problem := l.directory()
	if problem != nil {
		return address{}, problem
	}
	announced := readAnnouncement(directory)
	found := l.endpoint
	if found == "" {
		found = announced.firstEndpoint()
	}
	if found == "" {
		return address{}, unavailable("no daemon is ready in %s: start one with `backscroll serve --data-dir %s`, or "+
			"have Open start it", directory, directory)
	}
	if strings.HasPrefix(found, schemeIPC) {
		return address{endpoint: found}, nil
	}
	return l.withToken(found, announced)
}

func (l location) directory() (string, *Error) {
	if l.dataDir != "" {
		return l.dataDir, nil
	}
	return defaultDataDir()
}

func (l location) withToken(endpoint string, announced announcement) (address, *Error) {
	ofDaemon := ""
	if announced.lists(endpoint) {
		ofDaemon = announced.Token
	}
	sources := []string{l.token, ofDaemon, os.Getenv(tokenVariable)}
	if l.endpoint != "" {
		sources = []string{l.token, os.Getenv(tokenVariable), ofDaemon}
	}
	chosen := slices.IndexFunc(sources, func(token string) bool { return token != "" })
	if chosen < 0 {
		return address{}, failure(ErrUnauthenticated, "there is no token for %s: name the daemon's data directory, or give "+
			"a token made by `backscroll token create`, as Token or in the environment variable %s", endpoint, tokenVariable)
	}
	token := sources[chosen]
	if !isPrintable(token) || len(token) > language.MaxAuthBytes {
		return address{}, failure(ErrInvalid, "the token for %s is none: it must be printable text of at most %d bytes",
			endpoint, language.MaxAuthBytes)
	}
	return address{endpoint: endpoint, token: token}, nil
}

func isPrintable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return unicode.In(r, unicode.C, unicode.Zl, unicode.Zp)
	})
}

// targetOf returns where to connect to; it is an error if this client cannot use the address.
func targetOf(endpoint string) (network, target string, problem *Error) {
	if path, isIPC := strings.CutPrefix(endpoint, schemeIPC); isIPC && path != "" {
		return "unix", path, nil
	}
	if rest, isTCP := strings.CutPrefix(endpoint, schemeTCP); isTCP {
		host, port, err := net.SplitHostPort(rest)
		if number, notNumber := strconv.ParseUint(port, 10, 32); err == nil && notNumber == nil && host != "" &&
			number >= 1 && number <= portMax {
			return "tcp", rest, nil
		}
	}
	hint := "an address is such as tcp://127.0.0.1:5555 or ipc:///PATH"
	if strings.HasPrefix(endpoint, schemeCURVE) {
		hint = "this client has no CURVE: use ipc, or tcp on the same machine"
	}
	return "", "", failure(ErrInvalid, "cannot connect to %q: %s", endpoint, hint)
}

// defaultDataDir returns the directory named by BACKSCROLL_DATA_DIR, or else the platform's for the data of this user.
func defaultDataDir() (string, *Error) {
	named := os.Getenv(dataDirVariable)
	if named != "" && named != "~" && !strings.HasPrefix(named, "~/") {
		return named, nil
	}
	if xdg := os.Getenv("XDG_DATA_HOME"); named == "" && xdg != "" && runtime.GOOS != "darwin" && runtime.GOOS != "windows" {
		return filepath.Join(xdg, "backscroll"), nil
	}
	if local := os.Getenv("LOCALAPPDATA"); named == "" && local != "" && runtime.GOOS == "windows" {
		return filepath.Join(local, "backscroll"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", failure(ErrInvalid, "this user has no home directory: name a data directory, as DataDir or in %s",
			dataDirVariable)
	}
	switch {
	case named != "":
		return filepath.Join(home, named[1:]), nil
	case runtime.GOOS == "darwin":
		return filepath.Join(home, "Library", "Application Support", "backscroll"), nil
	case runtime.GOOS == "windows":
		return filepath.Join(home, "AppData", "Local", "backscroll"), nil
	default:
		return filepath.Join(home, ".local", "share", "backscroll"), nil
	}
}

// readAnnouncement returns what a ready daemon wrote. It is beside its socket elsewhere if the daemon cannot write into
// its data directory.
func readAnnouncement(directory string) announcement {
	if elsewhere := runtimeDir(directory); elsewhere != "" && isOwn(filepath.Dir(elsewhere)) {
		if announced, isThere := readAnnouncementFile(elsewhere); isThere {
			return announced
		}
	}
	announced, _ := readAnnouncementFile(directory)
	return announced
}

// readAnnouncementFile reads a file that may be missing, or be replaced at the moment.
func readAnnouncementFile(directory string) (announced announcement, isThere bool) {
	file := filepath.Join(directory, endpointFile)
	if info, err := os.Stat(file); err != nil || info.Size() > endpointFileSize {
		return announcement{}, false
	}
	text, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(text, &announced) != nil {
		return announcement{}, false
	}
	return announced, announced.Endpoints != nil
}

// runtimeDir returns where the files of a daemon are whose data directory cannot be written; empty if there is none.
func runtimeDir(directory string) string {
	uid := os.Getuid()
	if uid < 0 {
		return ""
	}
	real, err := filepath.Abs(directory)
	if err != nil {
		return ""
	}
	if followed, err := filepath.EvalSymlinks(real); err == nil {
		real = followed
	}
	place := os.Getenv("XDG_RUNTIME_DIR")
	if place == "" {
		place = os.TempDir()
	}
	digest := sha256.Sum256([]byte(real))
	return filepath.Join(place, "backscroll-"+strconv.Itoa(uid), hex.EncodeToString(digest[:])[:16])
}

// firstEndpoint returns the first one that this client can use, or else one that it cannot.
func (a announcement) firstEndpoint() string {
	for _, endpoint := range a.Endpoints {
		if !strings.HasPrefix(endpoint, schemeCURVE) {
			return endpoint
		}
	}
	return strings.Join(a.Endpoints[:min(1, len(a.Endpoints))], "")
}

func (a announcement) lists(endpoint string) bool {
	return slices.ContainsFunc(a.Endpoints, func(each string) bool {
		return withOneLoopback(each) == withOneLoopback(endpoint)
	})
}

// withOneLoopback returns the endpoint with the same name for all loopback hosts, which differ only in the port.
func withOneLoopback(endpoint string) string {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(endpoint, schemeTCP))
	if err == nil && slices.Contains([]string{"127.0.0.1", "::1", "localhost"}, host) {
		return schemeTCP + "localhost:" + port
	}
	return endpoint
}

// hello is the question whose answer proves that the daemon knows a token, before the token is sent: whatever listens on
// a tcp port may be another program, after a daemon was killed.
type hello struct {
	address
	nonce string
}

func newHello(to address) hello {
	var nonce [helloNonceBytes]byte
	_, _ = rand.Read(nonce[:]) // it never fails
	return hello{address: to, nonce: hex.EncodeToString(nonce[:])}
}

func (h hello) request() []byte {
	payload := Hello{Nonce: h.nonce}
	if name := h.tokenName(); name != "" {
		payload.Name = &name
	}
	body, _ := json.Marshal(map[string]any{"id": "hello-" + h.nonce, "type": payload.OperationName(), "payload": payload})
	return body
}

// check returns the error of an answer that proves nothing.
func (h hello) check(body []byte) *Error {
	var reply struct {
		Result Proof       `json:"result"`
		Error  *replyError `json:"error"`
	}
	err := json.Unmarshal(body, &reply)
	if err == nil && h.isProven(reply.Result) {
		return nil
	}
	answer := ""
	if err == nil && reply.Error != nil && reply.Error.Code == ErrUnauthenticated {
		return failure(ErrUnauthenticated, "the daemon at %s does not know the token %q: it was revoked, has expired, or is "+
			"for another daemon; nothing was sent", h.endpoint, h.tokenName())
	} else if err == nil && reply.Error != nil {
		answer = " and answered " + strconv.Quote(quoted(string(reply.Error.Code)))
	}
	return unavailable("whatever answers at %s did not prove that it knows the token%s: it is another program, or the token "+
		"is wrong or for another daemon; nothing was sent", h.endpoint, answer)
}

// isProven tells whether a proof is about this token, this connection's nonce, and a daemon that is bound to this port.
func (h hello) isProven(given Proof) bool {
	expected := proofOf(h.token, h.nonce, given.Endpoints)
	return hmac.Equal([]byte(given.Proof), []byte(expected)) &&
		slices.ContainsFunc(given.Endpoints, func(each string) bool { return portOf(each) == portOf(h.endpoint) })
}

// tokenName returns the name in a token such as bot.q8Jx…; the start token has none.
func (h hello) tokenName() string {
	return h.token[:max(0, strings.LastIndexByte(h.token, '.'))]
}

// proofOf returns what a daemon that knows a token answers to hello, in hex.
func proofOf(token, nonce string, endpoints []string) string {
	key := sha256.Sum256([]byte(token))
	proof := hmac.New(sha256.New, key[:])
	proof.Write([]byte(strings.Join(append([]string{helloPrefix, nonce}, endpoints...), "\n")))
	return hex.EncodeToString(proof.Sum(nil))
}

func portOf(endpoint string) string { return endpoint[strings.LastIndexByte(endpoint, ':')+1:] }

func quoted(text string) string { return text[:min(len(text), quotedBytesMax)] }
