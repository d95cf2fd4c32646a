/* The executable that a runtime calls, in C: hands the call to the agent and relays its answer.
 *
 * The same program as relay.py, whose opening says what it does and why; for the same call both send the same
 * bytes and print the same text. Memory is static and every length is checked before it is used; no shell, no
 * heap, no dependency but libc.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { ENV_MAX = 64 * 1024, STDIN_MAX = 1024 * 1024, STDOUT_MAX = 4 * 1024 * 1024 };
enum { REQUEST_HEAD = 12, RESPONSE_HEAD = 5, RETRY_MS = 50, SHOWN = 200, TEXT_MAX = 1024, VERSION_MAX = 16 };
enum { VERSION_MS = 1000, STATUS_WAIT_MS = 10000, STATUS_MS = 8000 };
enum { BOOT_MAX = 33, NAME_MAX_OURS = 160 };
enum { SOCKET_PATH_MAX = sizeof((struct sockaddr_un *)0)->sun_path - 1, SPOOL_PATH_MAX = 4000 };
#define REMEDY "see that routable-agent runs on this node and what its log says"
#define CUT(value) SHOWN, (value), strlen(value) > SHOWN ? "..." : "" /* the arguments of "%.*s%s" */

struct call {
    const char *command, *socket, *spool;
    long wait, timeout; /* milliseconds */
    size_t length, input; /* of the frame; of standard input at its end */
    unsigned char frame[REQUEST_HEAD + ENV_MAX + STDIN_MAX + 1];
};

struct answer {
    size_t length;
    unsigned char bytes[RESPONSE_HEAD + STDOUT_MAX];
};

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

__attribute__((format(printf, 2, 3))) static int say(char text[TEXT_MAX], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, TEXT_MAX, format, arguments);
    va_end(arguments);
    return -1;
}

/* Write to standard output; 0, or -1 if it could not be written whole. */
static int put(const void *bytes, size_t length)
{
    const char *rest = bytes;
    while (length > 0) {
        ssize_t n = write(1, rest, length);
        if (n < 0 && errno == EAGAIN)
            fcntl(1, F_SETFL, fcntl(1, F_GETFL) & ~O_NONBLOCK);
        else if (n < 0 && errno != EINTR)
            return -1;
        else if (n > 0)
            rest += n, length -= (size_t)n;
    }
    return 0;
}

/* Append text as a JSON string; bytes that are not ASCII are shown as \xNN. */
static char *quoted(char *to, const char *text)
{
    *to++ = '"';
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\')
            *to++ = '\\', *to++ = (char)byte;
        else if (byte >= 0x80)
            to += sprintf(to, "\\\\x%02x", byte);
        else if (byte >= ' ' && byte <= '~')
            *to++ = (char)byte;
        else
            to += sprintf(to, "\\u%04x", byte);
    }
    *to++ = '"';
    return to;
}

/* Print the CNI error and exit. */
static _Noreturn void refuse(int code, const char *message, const char *details)
{
    static char json[2 * 6 * TEXT_MAX + 128]; /* two texts, of which a byte takes at most six: \u001f */
    char *end = json + sprintf(json, "{\"cniVersion\": \"1.1.0\", \"code\": %d, \"msg\": ", code);
    end = quoted(end, message);
    end += sprintf(end, ", \"details\": ");
    end = quoted(end, details);
    end += sprintf(end, "}\n");
    put(json, (size_t)(end - json));
    _exit(1);
}

/* A closed standard descriptor is occupied, so that output never lands in the agent's socket or a spool file. */
static void keep_standard_descriptors(void)
{
    char message[TEXT_MAX];
    for (int fd = 0; fd <= 2; fd++) /* read-only: writing an answer to it fails, as it must */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY | O_CLOEXEC) < 0) {
            say(message, "/dev/null cannot be opened: %s (errno %d)", strerror(errno), errno);
            refuse(5, message, "a standard descriptor is closed");
        }
}

static const char *path(const char *name, const char *preset, size_t longest)
{
    char message[TEXT_MAX], details[TEXT_MAX];
    const char *value = getenv(name);
    if (value == NULL)
        return preset;
    if (value[0] == '/' && strlen(value) <= longest)
        return value;
    say(message, "%s is \"%.*s%s\"", name, CUT(value));
    say(details, "expected an absolute path of at most %zu bytes", longest);
    refuse(4, message, details);
}

static int is_digit(char c) { return c >= '0' && c <= '9'; }

/* Seconds as [0-9]{1,4}(.[0-9]{1,3})? in milliseconds. */
static long milliseconds(const char *name, long preset, long least)
{
    char message[TEXT_MAX], details[TEXT_MAX];
    const char *value = getenv(name), *c = value;
    long given = 0, whole = 0, part = 0;
    if (value == NULL)
        return preset;
    for (; is_digit(*c) && whole < 4; c++, whole++)
        given = given * 10 + (*c - '0');
    given *= 1000;
    if (*c == '.')
        for (long weight = 100; is_digit(*++c) && part < 3; part++, weight /= 10)
            given += weight * (*c - '0');
    if (whole > 0 && (c[0] == '\0') && (c[-1] != '.') && given >= least && given <= 3600000)
        return given;
    say(message, "%s is \"%.*s%s\"", name, CUT(value));
    say(details, "expected seconds from %g to 3600 with at most three decimals, such as 10 or 0.5", (double)least / 1000);
    refuse(4, message, details);
}

static void put_u32(unsigned char *to, size_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (unsigned char)(value >> (24 - 8 * i));
}

/* Of a name that is given twice the first counts, as for getenv; length is the name's and its '='. */
static int is_repeated(char **entry, size_t length)
{
    for (char **earlier = environ; earlier != entry; earlier++)
        if (strncmp(*earlier, *entry, length) == 0)
            return 1;
    return 0;
}

/* Copy every CNI_* variable as KEY=VALUE and NUL, in the environment's order, and return their length. */
static size_t take_variables(unsigned char *to)
{
    char message[TEXT_MAX], details[TEXT_MAX];
    size_t total = 0, largest = 0;
    const char *culprit = "";
    for (char **entry = environ; entry && *entry; entry++) {
        const char *equals = strchr(*entry, '=');
        size_t length = strlen(*entry) + 1;
        if (equals == NULL || strncmp(*entry, "CNI_", 4) != 0 || is_repeated(entry, (size_t)(equals - *entry) + 1))
            continue;
        if (total + length <= ENV_MAX)
            memcpy(to + total, *entry, length);
        total += length;
        if (length > largest)
            largest = length, culprit = *entry;
    }
    if (total <= ENV_MAX)
        return total;
    size_t name = strcspn(culprit, "=");
    say(message, "the CNI_* variables have %zu bytes, %zu of them in %.*s%s", total, largest,
        (int)(name > SHOWN ? SHOWN : name), culprit, name > SHOWN ? "..." : "");
    say(details, "at most %d bytes can be forwarded to the agent", ENV_MAX);
    refuse(4, message, details);
}

/* Read standard input to its end; to has room for one byte more than is allowed. */
static size_t take_stdin(unsigned char *to)
{
    char message[TEXT_MAX];
    size_t total = 0;
    while (total <= STDIN_MAX) {
        ssize_t n = read(0, to + total, STDIN_MAX + 1 - total);
        if (n == 0)
            return total;
        if (n > 0)
            total += (size_t)n;
        else if (errno == EAGAIN) /* a caller's pipe may have been left non-blocking */
            fcntl(0, F_SETFL, fcntl(0, F_GETFL) & ~O_NONBLOCK);
        else if (errno != EINTR) {
            say(message, "standard input cannot be read: %s (errno %d)", strerror(errno), errno);
            refuse(5, message, "it must hold the network configuration");
        }
    }
    say(message, "standard input has more than %d bytes", STDIN_MAX);
    refuse(6, message, "it must hold the network configuration, which is JSON of a few thousand bytes");
}

/* A connection to the agent, or -1 with errno, without waiting: a full backlog is EAGAIN. */
static int dialled(const char *where)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error;
    if (stream < 0)
        return -1;
    memcpy(address.sun_path, where, strlen(where) + 1); /* path() has checked the length */
    if (connect(stream, (struct sockaddr *)&address, sizeof address) == 0)
        return stream;
    error = errno;
    close(stream);
    errno = error;
    return -1;
}

/* A connection to the agent, trying again until deadline, patience ms, while it is starting, or -1 and why. */
static int connected(const char *where, long patience, long deadline, char why[TEXT_MAX])
{
    long left;
    for (;;) {
        int stream = dialled(where), error = errno;
        if (stream >= 0)
            return stream;
        left = deadline - now();
        if ((error != ENOENT && error != EAGAIN && error != ECONNREFUSED) || patience == 0)
            return say(why, "connecting failed: %s (errno %d)", strerror(error), error);
        if (left <= 0)
            return say(why, "connecting failed for %g s (ROUTABLE_WAIT): %s (errno %d)", (double)patience / 1000,
                       strerror(error), error);
        poll(NULL, 0, (int)(left < RETRY_MS ? left : RETRY_MS));
    }
}

/* Send or receive bytes, counted in *done, until length, the deadline (ETIMEDOUT) or an error; 0 or errno. */
static int transfer(int stream, short events, unsigned char *bytes, size_t length, size_t *done, long deadline)
{
    while (*done < length) {
        struct pollfd ready = {.fd = stream, .events = events};
        long left = deadline - now();
        if (left <= 0)
            return ETIMEDOUT;
        ssize_t n = events == POLLOUT ? send(stream, bytes + *done, length - *done, MSG_NOSIGNAL)
                                      : recv(stream, bytes + *done, length - *done, 0);
        if (n > 0)
            *done += (size_t)n;
        else if (n == 0)
            return ECONNRESET;
        else if (errno == EAGAIN)
            poll(&ready, 1, (int)left);
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

enum { HUNG_UP = -2 };

/* Send the request and receive the whole answer, all within timeout; 0, or why and -1, or HUNG_UP where the agent has
 * closed the connection first. */
static int exchanged(int stream, struct call *call, struct answer *answer, char why[TEXT_MAX])
{
    long deadline = now() + call->timeout;
    size_t sent = 0, announced = 0;
    answer->length = 0;
    int error = transfer(stream, POLLOUT, call->frame, call->length, &sent, deadline);
    /* The agent may have refused the request before its end; then its answer can still be read. */
    if (error == 0 || error == EPIPE || error == ECONNRESET)
        error = transfer(stream, POLLIN, answer->bytes, RESPONSE_HEAD, &answer->length, deadline);
    if (error == 0) {
        for (int i = 1; i < RESPONSE_HEAD; i++)
            announced = announced << 8 | answer->bytes[i];
        if (announced > STDOUT_MAX)
            return say(why, "its answer announces %zu bytes, and the limit is %d", announced, STDOUT_MAX);
        error = transfer(stream, POLLIN, answer->bytes, RESPONSE_HEAD + announced, &answer->length, deadline);
    }
    if (error == ETIMEDOUT)
        return say(why, "only %zu bytes of an answer within %g s (ROUTABLE_TIMEOUT)", answer->length,
                   (double)call->timeout / 1000);
    if (error == ECONNRESET) {
        say(why, "it closed the connection after %zu bytes of an answer", answer->length);
        return HUNG_UP;
    }
    if (error != 0)
        return say(why, "the connection failed: %s (errno %d)", strerror(error), error);
    return 0;
}

/* A descriptor of the directory, which is made (0700, parents too) if it is missing; -1 with errno. */
static int opened(const char *directory)
{
    char part[SPOOL_PATH_MAX + 1];
    int folder = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0 || errno != ENOENT)
        return folder;
    for (size_t end = 1; end <= strlen(directory); end++) /* path() has checked the length */
        if (directory[end] == '/' || directory[end] == '\0') {
            memcpy(part, directory, end);
            part[end] = '\0';
            if (mkdir(part, 0700) < 0 && errno != EEXIST)
                return -1;
        }
    return open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* The boot's id without its dashes, or "" where /proc is not there. */
static void take_boot(char to[BOOT_MAX])
{
    char text[64];
    size_t length = 0;
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = file < 0 ? 0 : read(file, text, sizeof text);
    for (ssize_t i = 0; i < n && length < BOOT_MAX - 1; i++)
        if (text[i] != '-' && text[i] != '\n')
            to[length++] = text[i];
    to[length] = '\0';
    if (file >= 0)
        close(file);
}

/* Write the request as a new file, named as relay.py says, whole or not at all; 0, or -1 with errno. */
static int spooled(const struct call *call)
{
    char temporary[NAME_MAX_OURS + 1], name[NAME_MAX_OURS], boot[BOOT_MAX];
    struct timespec wall, up;
    int folder, file, error = 0;
    umask(077);
    folder = opened(call->spool);
    if (folder < 0)
        return -1;
    clock_gettime(CLOCK_REALTIME, &wall);
    clock_gettime(CLOCK_BOOTTIME, &up);
    take_boot(boot);
    snprintf(name, sizeof name, "del-%lld%09ld-%ld.%lld%09ld.%s", (long long)wall.tv_sec, wall.tv_nsec, (long)getpid(),
             (long long)up.tv_sec, up.tv_nsec, boot);
    snprintf(temporary, sizeof temporary, ".%s", name);
    file = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return -1;
    for (size_t done = 0; done < call->length && error == 0;) {
        ssize_t n = write(file, call->frame + done, call->length - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            error = errno;
    }
    if (error == 0 && (fsync(file) < 0 || renameat(folder, temporary, folder, name) < 0))
        error = errno;
    if (error != 0) {
        unlinkat(folder, temporary, 0);
        errno = error;
        return -1;
    }
    return 0;
}

static int is(const char *command, const char *verb) { return command != NULL && strcmp(command, verb) == 0; }

static int is_waiting(const char *command) { return is(command, "ADD") || is(command, "CHECK") || is(command, "GC"); }

static long least(long one, long other) { return one < other ? one : other; }

/* The agent's answer; 0, or -1 and why. A STATUS is asked again if the agent ends first: it changes nothing. */
static int answered(struct call *call, struct answer *answer, char why[TEXT_MAX])
{
    long deadline = now() + call->wait;
    for (;;) {
        int stream = connected(call->socket, call->wait, deadline, why);
        int outcome = stream < 0 ? -1 : exchanged(stream, call, answer, why);
        if (outcome != HUNG_UP || !is(call->command, "STATUS") || now() >= deadline)
            return outcome;
        close(stream);
        poll(NULL, 0, RETRY_MS);
    }
}

static const unsigned char *behind_space(const unsigned char *at, const unsigned char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n'))
        at++;
    return at;
}

/* The cniVersion of the input, which VERSION answers with, by its text: nothing here reads JSON. */
static void asked_version(const struct call *call, char version[VERSION_MAX + 1])
{
    static const char key[] = "\"cniVersion\"";
    const unsigned char *end = call->frame + call->length, *start = end - call->input;
    const unsigned char *at = memmem(start, call->input, key, sizeof key - 1);
    size_t length = 0;
    strcpy(version, "1.1.0");
    if (at == NULL)
        return;
    at = behind_space(at + sizeof key - 1, end);
    if (at == end || *at++ != ':')
        return;
    at = behind_space(at, end);
    if (at == end || *at++ != '"')
        return;
    while (at + length < end && (is_digit((char)at[length]) || at[length] == '.'))
        length++;
    if (length == 0 || length > VERSION_MAX || at + length == end || at[length] != '"')
        return;
    memcpy(version, at, length);
    version[length] = '\0';
}

static int put_versions(const struct call *call)
{
    static const char rest[] = "\", \"supportedVersions\": [\"0.3.0\", \"0.3.1\", \"0.4.0\", \"1.0.0\", \"1.1.0\"]}\n";
    char version[VERSION_MAX + 1], text[VERSION_MAX + sizeof rest + 32];
    asked_version(call, version);
    return put(text, (size_t)sprintf(text, "{\"cniVersion\": \"%s%s", version, rest)) == 0 ? 0 : 1;
}

/* Answer a call that the agent did not answer. */
static int without_agent(const struct call *call, const char *why)
{
    char message[TEXT_MAX], details[TEXT_MAX];
    say(details, "%s; " REMEDY, why);
    if (is(call->command, "VERSION"))
        return put_versions(call);
    if (is(call->command, "DEL")) {
        if (spooled(call) == 0)
            return 0;
        say(message, "DEL could be neither served nor kept: writing to %.*s%s failed: %s (errno %d)", CUT(call->spool),
            strerror(errno), errno);
        say(details,
            "no answer from routable-agent on %s: %s; " REMEDY ", or make the directory (ROUTABLE_SPOOL) writable",
            call->socket, why);
        refuse(11, message, details);
    }
    if (is(call->command, "STATUS")) {
        say(message, "no pod can be added: no answer from routable-agent on %s", call->socket);
        refuse(50, message, details);
    }
    if (is_waiting(call->command)) {
        say(message, "%s was not served: no answer from routable-agent on %s", call->command, call->socket);
        refuse(11, message, details);
    }
    if (call->command == NULL)
        say(message, "CNI_COMMAND is not set");
    else
        say(message, "CNI_COMMAND is \"%.*s%s\"", CUT(call->command));
    refuse(4, message,
           "expected ADD, DEL, CHECK, GC, STATUS or VERSION; this program is called by a container runtime");
}

int main(void)
{
    static struct call call;
    static struct answer answer;
    char why[TEXT_MAX];
    size_t env;
    signal(SIGPIPE, SIG_IGN); /* a closed standard output is EPIPE */
    signal(SIGXFSZ, SIG_IGN); /* a limit of file size is EFBIG */
    keep_standard_descriptors();
    call.socket = path("ROUTABLE_SOCKET", "/run/routable/agent.sock", SOCKET_PATH_MAX);
    call.spool = path("ROUTABLE_SPOOL", "/var/lib/routable/spool", SPOOL_PATH_MAX);
    call.wait = milliseconds("ROUTABLE_WAIT", 10000, 0);
    call.timeout = milliseconds("ROUTABLE_TIMEOUT", 60000, 1);
    call.command = getenv("CNI_COMMAND");
    if (is(call.command, "VERSION"))
        call.wait = 0, call.timeout = least(call.timeout, VERSION_MS);
    else if (is(call.command, "STATUS"))
        call.wait = least(call.wait, STATUS_WAIT_MS), call.timeout = least(call.timeout, STATUS_MS);
    else if (!is_waiting(call.command))
        call.wait = 0;
    env = take_variables(call.frame + REQUEST_HEAD);
    call.input = take_stdin(call.frame + REQUEST_HEAD + env);
    memcpy(call.frame, "CNI1", 4);
    put_u32(call.frame + 4, env);
    put_u32(call.frame + 8, call.input);
    call.length = REQUEST_HEAD + env + call.input;
    if (answered(&call, &answer, why) < 0)
        return without_agent(&call, why);
    if (put(answer.bytes + RESPONSE_HEAD, answer.length - RESPONSE_HEAD) < 0)
        return answer.bytes[0] ? answer.bytes[0] : 1;
    return answer.bytes[0];
}
