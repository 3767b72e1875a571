"use strict";
/*
 * Keeps a page live: asks `data-live-url` again and again and puts each element of the answer that has an id in
 * place of the element of that id.  The answer says `data-live="stop"` when nothing will change any more.
 */
{
    const source = document.querySelector("[data-live-url]");
    const notice = document.getElementById("live-notice");
    const pause = 1000 * (Number(source?.dataset.liveSeconds) || 1);
    let etag = "";
    let failures = 0;

    const say = (text) => {
        if (notice) {
            notice.textContent = text;
            notice.hidden = !text;
        }
    };

    const swap = (html) => {
        const answer = new DOMParser().parseFromString(html, "text/html");
        const focused = document.activeElement?.id;
        for (const fresh of answer.querySelectorAll("[data-live-part]")) {
            const old = document.getElementById(fresh.id);
            if (!old || old.outerHTML === fresh.outerHTML) continue;
            // What the reader has opened stays open.
            for (const details of old.querySelectorAll("details[id][open]")) {
                answer.getElementById(details.id)?.setAttribute("open", "");
            }
            old.replaceWith(document.importNode(fresh, true));
        }
        if (focused) document.getElementById(focused)?.focus({preventScroll: true});
        const title = answer.querySelector("[data-page-title]");
        if (title) document.title = title.dataset.pageTitle;
        return answer.querySelector("[data-live='stop']") === null;
    };

    const ask = async () => {
        if (document.hidden) {
            document.addEventListener("visibilitychange", ask, {once: true});
            return;
        }
        let goesOn = true;
        try {
            const headers = etag ? {"If-None-Match": etag} : {};
            const answer = await fetch(source.dataset.liveUrl, {headers, cache: "no-store"});
            if (answer.redirected) {
                say("The session has ended. Reload the page to log in again.");
                return;
            }
            if (!answer.ok && answer.status !== 304) throw new Error(String(answer.status));
            if (answer.ok) {
                etag = answer.headers.get("ETag") || "";
                goesOn = swap(await answer.text());
            }
            failures = 0;
            say("");
        } catch {
            failures += 1;
            say("Connection lost, retrying …");
        }
        if (goesOn) setTimeout(ask, Math.min(10000, pause * 2 ** Math.min(failures, 4)));
    };

    if (source) setTimeout(ask, pause);
}
