/* A launcher that shows what it was given: lab-run [OPTION...] IMAGE [COMMAND...]
 *
 * getopt_long reads its command line. It prints its own name, the options in their order, IMAGE and COMMAND, a line each.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static const char help[] = "Usage: lab-run [OPTION...] IMAGE [COMMAND...]\n"
                           "  -b, --bind=PLACE\n"
                           "  -v, --verbose\n"
                           "      --color[=WHEN]\n"
                           "      --dressed    what the backend is to do in namespaces\n"
                           "      --environment\n"
                           "      --exit=STATUS\n"
                           "      --kill=SIGNAL\n"
                           "      --look=PATH  say whether it is there\n"
                           "      --stage=DIR\n"
                           "      --stdin\n"
                           "      --help, --version\n";

static const struct option options[] = {
    {"bind", required_argument, NULL, 'b'}, {"verbose", no_argument, NULL, 'v'},  {"color", optional_argument, NULL, 'c'},
    {"dressed", no_argument, NULL, 'D'},    {"environment", no_argument, NULL, 'E'}, {"exit", required_argument, NULL, 'e'},
    {"kill", required_argument, NULL, 'k'}, {"look", required_argument, NULL, 'l'}, {"stage", required_argument, NULL, 's'},
    {"stdin", no_argument, NULL, 'i'},      {"help", no_argument, NULL, 'h'},     {"version", no_argument, NULL, 'V'},
    {0},
};

static void copy_stdin(void)
{
    for (int c; (c = getchar()) != EOF;)
        putchar(c);
}

int main(int argc, char **argv)
{
    int status = 0, option;
    printf("name %s\n", argv[0]);
    while ((option = getopt_long(argc, argv, "b:v", options, NULL)) != -1) {
        switch (option) {
        case '?':
            return 64;
        case 'h':
            fputs(help, stdout);
            return 0;
        case 'V':
            puts("lab-run 1.0");
            return 0;
        case 'e':
            status = atoi(optarg);
            break;
        case 'k':
            raise(atoi(optarg));
            break;
        case 'i':
            copy_stdin();
            break;
        case 'E':
            for (char **entry = environ; *entry != NULL; entry++)
                printf("env %s\n", *entry);
            break;
        case 'l':
            printf("look %s %s\n", optarg, access(optarg, F_OK) == 0 ? "yes" : "no");
            break;
        default:
            printf("option %c %s\n", option, optarg == NULL ? "" : optarg);
        }
    }
    if (optind == argc) {
        fputs("lab-run: no IMAGE\n", stderr);
        return 64;
    }
    printf("image %s\n", argv[optind++]);
    while (optind < argc)
        printf("word %s\n", argv[optind++]);
    return fflush(stdout) == 0 ? status : 1;
}
